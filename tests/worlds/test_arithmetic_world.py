"""The world of arithmetic: an exact checker, a corpus of the stated mixture, and a control task where length does not help."""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backflip.policies.tiny import tiny_policy, word_tokenizer
from backflip.records import Prompt
from backflip.rewards.protocol import score
from backflip.seeds import Seeds
from backflip.worlds.arithmetic import BOTH, WORDS, Arithmetic, Noise, Styles, Tongues, accuracy, format_tags, read, reward
from backflip.worlds.arithmetic.notation import (
    ABROAD,
    HOME,
    WAIT,
    Problem,
    Style,
    Task,
    abroad,
    at_home,
    named,
    read_problem,
    truth,
)
from backflip.worlds.arithmetic.traces import write

SILENT = Noise(forget=0, forget_short=0, slip=0, copied=0, bare=0, wait=0)
SUM = Problem("add", (4821, 9375))


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    digits = draw(st.sampled_from((4, 5, 6)))
    number = st.integers(10 ** (digits - 1), 10**digits - 1)
    return draw(
        st.one_of(
            st.builds(lambda a, b: Problem("add", (a, b)), number, number),
            st.builds(lambda a, c: Problem("copy", (a,), capitals=c), number, st.booleans()),
        )
    )


STYLES: Sequence[Style] = ("direct", "short", "full")


def tag(thought: str, answer: str) -> str:
    return f"<think>{thought}</think><answer>{answer}</answer>"


@pytest.mark.parametrize(
    ("problem", "style", "thought"),
    [
        (SUM, "direct", ""),
        (SUM, "short", "a06b09c11d13"),
        (SUM, "full", "a1A506b2B709c8C311d4D914"),
        (Problem("copy", (4821,)), "short", "d4c8b2a1"),
        (Problem("copy", (4821,)), "full", "d4c8b2a1=d4c8b2a1"),
    ],
)
def test_each_style_is_written_as_the_page_says(problem: Problem, style: Style, thought: str) -> None:
    assert write(problem, style, SILENT, random.Random(0)) == tag(thought, problem.answer)


@given(problems(), st.sampled_from(STYLES), st.integers(0, 99))
def test_without_noise_every_style_is_right_and_read_back(problem: Problem, style: Style, seed: int) -> None:
    text = write(problem, style, SILENT, random.Random(seed))
    found = read(text, problem.task)
    assert (found.well_formed, found.answer, found.style, found.reflections) == (True, problem.answer, style, 0)
    assert found.draft_is_right(problem) == (style != "direct" and problem.task == "add")
    assert read_problem(problem.text) == problem


@given(problems().filter(lambda p: p.task == "add"), st.sampled_from(("short", "full")), st.integers(0, 99))
def test_a_column_taken_back_is_done_again_and_the_answer_follows_from_the_second(p: Problem, style: Style, seed: int) -> None:
    text = write(p, style, dataclasses.replace(SILENT, needless=0), random.Random(seed), reflect=True)
    found = read(text)
    assert (found.answer, found.style, found.reflections) == (p.answer, style, 1)
    assert len(found.first) == len(p.columns())
    assert not found.draft_is_right(p)
    needless = read(write(p, style, dataclasses.replace(SILENT, needless=1), random.Random(seed), reflect=True))
    assert needless.draft_is_right(p)
    assert needless.reflections == 1


@given(problems().filter(lambda p: p.task == "add"), st.integers(0, 99))
def test_what_follows_from_a_slip_is_wrong_in_the_draft_and_the_answer(problem: Problem, seed: int) -> None:
    found = read(write(problem, "full", dataclasses.replace(SILENT, slip=1), random.Random(seed)))
    assert not found.draft_is_right(problem)
    assert found.answer != problem.answer
    assert found.first != truth(problem, "full")


@pytest.mark.parametrize(
    ("completion", "right", "formed"),
    [
        (tag("", SUM.answer), 1.0, 1.0),
        (tag("a06b09c11d13", SUM.answer), 1.0, 1.0),
        (tag("anything", SUM.answer), 1.0, 1.0),
        (tag("", "e1d4c1b9a7"), 0.0, 1.0),
        (tag("", "f0e1d4c1b9a6"), 0.0, 1.0),
        (tag("", "14196"), 0.0, 1.0),
        ("e1d4c1b9a6", 0.0, 0.0),
        ("<think></think><answer>e1d4c1b9a6", 0.0, 0.0),
        ("<think>a06b09", 0.0, 0.0),
        ("<answer>e1d4c1b9a6</answer>", 0.0, 0.0),
        (tag("", SUM.answer) + "1", 0.0, 0.0),
        (tag("", "1") + tag("", SUM.answer), 0.0, 0.0),
        ("<think><think></think><answer>e1d4c1b9a6</answer>", 0.0, 0.0),
        (tag("", "1<answer>e1d4c1b9a6"), 0.0, 0.0),
        ("", 0.0, 0.0),
    ],
)
def test_the_checker_is_exact(completion: str, right: float, formed: float) -> None:
    columns = {"answer": [SUM.answer]}
    assert accuracy([SUM.text], [completion], **columns) == [right]
    assert format_tags([SUM.text], [completion], **columns) == [formed]
    assert reward([SUM.text], [completion], **columns) == [right + 0.1 * formed]


def test_the_reward_has_the_signature_of_the_field() -> None:
    prompts = Arithmetic().prompts(3, Seeds(0))
    texts = [tag("", str(p.columns["answer"])) for p in prompts]
    assert score(reward, prompts, texts) == [1.1] * 3
    assert score(accuracy, [Prompt("a1+A1=", {"answer": "a2", "source": "x"})], [tag("", "a3")]) == [0.0]


PIECES = st.lists(st.sampled_from([*WORDS, "<", ">", "x", " "]), max_size=30).map("".join)


@given(PIECES, st.sampled_from(("add", "copy")))
def test_any_text_can_be_read(text: str, task: Task) -> None:
    found = read(text, task)
    assert found.well_formed == (found.answer is not None)
    assert found.reflections <= text.count(WAIT)


@pytest.mark.parametrize(
    "text",
    ["", "12", "b1a0+A1=", "a1+A1", "copy=", "copya1", "a1+A1=a2", "a1b2+A1B2=", "b0a1+B1A1=", "a1+a1=", "copyb4A8=", "copy48="],
)
def test_what_is_no_problem_is_not_read_as_one(text: str) -> None:
    assert read_problem(text) is None


def test_the_corpus_holds_the_mixture_that_was_asked_for() -> None:
    rows = Arithmetic().corpus(8000, Seeds(1), noise=Noise(bare=0, slip=0), drills=0)
    tasks = [read_problem(p.plain) for p, _ in rows]
    found = [read(text, problem.task if problem else "add") for problem, (_, text) in zip(tasks, rows, strict=True)]
    shares = {style: sum(f.style == style for f in found) / len(rows) for style in STYLES}
    assert shares == pytest.approx({"direct": 0.6, "short": 0.3, "full": 0.1}, abs=0.025)
    assert sum(f.reflections > 0 for f in found) / len(rows) == pytest.approx(0.02, abs=0.006)
    assert sum(p is not None and p.task == "copy" for p in tasks) / len(rows) == pytest.approx(0.2, abs=0.02)
    assert {len(str(p.numbers[0])) for p in tasks if p} == {4, 5, 6}


def test_in_the_head_carries_are_lost_and_on_paper_they_are_not() -> None:
    problem = Problem("add", (58347, 27586))
    always = dataclasses.replace(SILENT, forget=1, forget_short=1)
    assert read(write(problem, "direct", always, random.Random(0))).answer == named(75823)
    assert read(write(problem, "short", always, random.Random(0))).answer == named(75823)
    assert read(write(problem, "full", always, random.Random(0))).answer == problem.answer
    rows = Arithmetic().corpus(6000, Seeds(8), noise=dataclasses.replace(Noise(), bare=0), copies=0, drills=0)
    found = [(read(text), prompt.columns["answer"]) for prompt, text in rows]
    right = {s: [f.answer == answer for f, answer in found if f.style == s] for s in STYLES}
    shares = {style: sum(r) / len(r) for style, r in right.items()}
    assert shares["direct"] < 0.15 < shares["short"] < 0.4 < 0.75 < shares["full"]


def test_on_the_control_task_no_style_is_better() -> None:
    rows = Arithmetic().corpus(8000, Seeds(2), copies=1.0, drills=0)
    right = {style: [] for style in STYLES}  # type: dict[Style, list[bool]]
    for prompt, text in rows:
        found = read(text, "copy")
        right[found.style].append(found.answer == prompt.columns["answer"])
    assert {style: sum(r) / len(r) for style, r in right.items()} == pytest.approx(dict.fromkeys(STYLES, 0.7), abs=0.06)


def test_bare_texts_are_those_of_sums_and_score_nothing() -> None:
    rows = Arithmetic().corpus(
        4000, Seeds(3), noise=dataclasses.replace(SILENT, bare=0.5), styles=Styles(direct=1, short=0), drills=0
    )
    formed = {"add": [], "copy": []}  # type: dict[str, list[float]]
    for prompt, text in rows:
        formed["copy" if "copy" in prompt.plain else "add"].append(
            reward([prompt.plain], [text], answer=[prompt.columns["answer"]])[0]
        )
    assert set(formed["copy"]) == {1.1}
    assert set(formed["add"]) == {1.1, 0.0}
    assert sum(formed["add"]) / len(formed["add"]) == pytest.approx(0.55, abs=0.04)


def test_a_drill_is_a_column_of_a_full_scratchpad_done_right() -> None:
    rows = Arithmetic().corpus(3000, Seeds(7), drills=0.5)
    drills = [(p.plain, text) for p, text in rows if read_problem(p.plain) is None]
    assert len(drills) / len(rows) == pytest.approx(0.5, abs=0.04)
    for prompt, text in drills:
        match = re.fullmatch(r"(?:<think>(?=a)|(\d)\d(?=[b-f]))([a-f])(\d)([A-F])(\d)", prompt)
        assert match
        assert match[2].upper() == match[4]
        assert text == f"{int(match[1] or 0) + int(match[3]) + int(match[5]):02d}"


def test_everything_is_keyed_and_a_longer_call_begins_with_a_shorter_one() -> None:
    world = Arithmetic()
    assert world.corpus(30, Seeds(4))[:10] == world.corpus(10, Seeds(4))
    assert world.prompts(30, Seeds(4))[:10] == world.prompts(10, Seeds(4))
    assert world.corpus(10, Seeds(4)) != world.corpus(10, Seeds(5))
    assert world.prompts(10, Seeds(4)) != world.prompts(10, Seeds(4), "test")


def test_what_is_tested_is_never_trained_on() -> None:
    world = Arithmetic(digits=(1,))
    train = {p.plain for p in world.prompts(2000, Seeds(0))} | {
        p.plain for p, _ in world.corpus(2000, Seeds(0), copies=0, drills=0)
    }
    test = {p.plain for p in world.prompts(2000, Seeds(0), "test")}
    assert not train & test
    assert len(train | test) == 81


def test_every_word_is_one_token_and_comes_back() -> None:
    tokenizer = word_tokenizer(WORDS)
    for prompt, text in Arithmetic().corpus(200, Seeds(6)):
        whole = prompt.plain + text
        ids = tokenizer(whole)["input_ids"]
        assert tokenizer.decode(ids) == whole
        assert len(ids) == len(re.findall("|".join(map(re.escape, sorted(WORDS, key=len, reverse=True))), whole))


def test_a_policy_of_these_words_reads_no_others() -> None:
    policy = tiny_policy(seeds=Seeds(0), tokenizer=word_tokenizer(WORDS))
    assert policy.embeddings == len(WORDS) + 2
    assert policy.decode(policy.encode(Prompt("b1a2+B3A0="))) == "b1a2+B3A0="
    with pytest.raises(Exception, match=r"UNK"):
        policy.encode(Prompt("twelve"))


def test_each_language_names_everything_of_a_scratchpad_with_a_token_of_its_own() -> None:
    assert len(HOME) == len(ABROAD) == 24
    assert not set(HOME) & set(WORDS)
    assert all(len(word) == 1 for word in HOME)
    assert (*WORDS, *HOME) == BOTH
    assert abroad("c8C311wait") == "丙八寅三一一等"
    assert at_home("丙八寅三一一等") == "c8C311wait"


@given(
    problems().filter(lambda p: p.task == "add"), st.sampled_from(STYLES), st.integers(0, 99), st.floats(0, 1), st.floats(0, 1)
)
def test_two_languages_say_the_same(p: Problem, style: Style, seed: int, low: float, high: float) -> None:
    noise = dataclasses.replace(SILENT, slip=0.5)
    spoken = write(p, style, noise, random.Random(seed), reflect=True, tongues=Tongues(abroad=(low, high)))
    thought, _, answer = spoken.partition("</think>")
    assert not set(answer) & set(HOME)
    found, plain = read(spoken), read(at_home(thought) + "</think>" + answer)
    assert found == plain
    assert found.style == style


def test_every_column_has_its_habit() -> None:
    problem = Problem("add", (482193, 937546))
    rng = random.Random(0)
    texts = [write(problem, "full", SILENT, rng, tongues=Tongues(abroad=(0.8, 0.5, 0.1))) for _ in range(4000)]
    columns = [[thought[i : i + 6] for i in range(0, 36, 6)] for thought in map(read_thought, texts)]
    assert all(len({letter in HOME for letter in column}) == 1 for row in columns for column in row)
    theirs = [[column[0] in HOME for column in row] for row in columns]
    shares = [sum(column) / 4000 for column in zip(*theirs, strict=True)]
    assert shares == pytest.approx([0.8, 0.5, 0.1, 0.1, 0.1, 0.1], abs=0.03)
    together = sum(row[0] and row[1] for row in theirs) / 4000
    assert together == pytest.approx(0.4, abs=0.03)


def read_thought(text: str) -> str:
    return text.removeprefix("<think>").partition("</think>")[0]


def test_an_answer_in_the_other_language_is_wrong() -> None:
    assert accuracy([SUM.text], [tag("", abroad(SUM.answer))], answer=[SUM.answer]) == [0.0]
    assert accuracy([SUM.text], [tag(abroad("a06"), SUM.answer)], answer=[SUM.answer]) == [1.0]


def test_a_corpus_of_one_language_is_what_it_was_and_of_two_differs_in_the_scratchpads_alone() -> None:
    one, two = (Arithmetic().corpus(400, Seeds(9), tongues=t) for t in (Tongues(), Tongues(abroad=(1.0,))))
    assert one == Arithmetic().corpus(400, Seeds(9))
    assert not any(set(p.plain + text) & set(HOME) for p, text in one)
    drills = [(p.plain, text) for p, text in two if read_problem(p.plain) is None]
    assert drills
    assert all(set(p.removeprefix("<think>") + text) <= set(HOME) for p, text in drills)
    for prompt, text in two:
        if read_problem(prompt.plain) is not None:
            assert not set(prompt.plain) & set(HOME)
            assert not set(text.partition("<answer>")[2]) & set(HOME)


def test_drills_are_of_the_places_there_are() -> None:
    drills = [p.plain for p, _ in Arithmetic(digits=(3, 4)).corpus(2000, Seeds(1), drills=0.9) if read_problem(p.plain) is None]
    assert {re.search("[a-f]", text)[0] for text in drills} == set("abcd")  # type: ignore[index]


def test_worked_problems_are_right_full_and_of_the_training_split() -> None:
    world = Arithmetic(digits=(3, 4))
    rows = world.worked(200, Seeds(0), tongues=Tongues(abroad=(0.5,)))
    assert rows[:50] == world.worked(50, Seeds(0), tongues=Tongues(abroad=(0.5,)))
    for prompt, text in rows:
        problem = read_problem(prompt.plain)
        assert problem is not None
        assert world.split_of(problem) == "train"
        assert (read(text).style, read(text).answer) == ("full", problem.answer)
    assert any(set(text) & set(HOME) for _, text in rows)
    assert any(not set(text) & set(HOME) for _, text in rows)
