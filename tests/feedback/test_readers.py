"""Every format by hand, and every mistake with its file, line and remedy."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backflip.errors import DataError
from backflip.feedback.dialogues import ASSISTANT, HUMAN, split_hh_pair
from backflip.feedback.readers import (
    read_comparisons,
    read_demonstrations,
    read_prompts,
    read_queries,
    read_texts,
)
from backflip.feedback.rows import Demonstration, load_rows
from backflip.records import Comparison, Message, Prompt, Query, Verdict
from backflip.store import Store


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


HI = Prompt((Message("user", "hi"),))
PAIRS = {
    "plain": ({"prompt": "2+2=", "chosen": "4", "rejected": "5"}, Prompt("2+2="), "4", "5"),
    "explicit": (
        {"prompt": [user("hi")], "chosen": [assistant("yes")], "rejected": [assistant("no")]},
        HI,
        "yes",
        "no",
    ),
    "implicit": (
        {"chosen": [user("hi"), assistant("yes")], "rejected": [user("hi"), assistant("no")]},
        HI,
        "yes",
        "no",
    ),
    "stated twice": (
        {"prompt": "hi", "chosen": [user("hi"), assistant("yes")], "rejected": [user("hi"), assistant("no")]},
        HI,
        "yes",
        "no",
    ),
    "text prompt, messages": (
        {"prompt": "hi", "chosen": [assistant("yes")], "rejected": [assistant("no")]},
        HI,
        "yes",
        "no",
    ),
    "messages, text replies": ({"prompt": [user("hi")], "chosen": "yes", "rejected": "no"}, HI, "yes", "no"),
    "same answer": (
        {"chosen": [user("hi"), assistant("yes")], "rejected": [user("hi"), assistant("yes")]},
        HI,
        "yes",
        "yes",
    ),
    "sharegpt": (
        {
            "conversations": [{"from": "system", "value": "be brief"}, {"from": "human", "value": "hi"}],
            "chosen": {"from": "gpt", "value": "yes"},
            "rejected": {"from": "gpt", "value": "no"},
        },
        Prompt((Message("system", "be brief"), Message("user", "hi"))),
        "yes",
        "no",
    ),
    "hh": (
        {"chosen": "\n\nHuman: hi\n\nAssistant: yes", "rejected": "\n\nHuman: hi\n\nAssistant: yeah"},
        Prompt("\n\nHuman: hi\n\nAssistant:"),
        " yes",
        " yeah",
    ),
    "hh parting early": (
        {
            "chosen": "\n\nHuman: hi\n\nAssistant: a\n\nHuman: b\n\nAssistant: c",
            "rejected": "\n\nHuman: hi\n\nAssistant: z",
        },
        Prompt("\n\nHuman: hi\n\nAssistant:"),
        " a\n\nHuman: b\n\nAssistant: c",
        " z",
    ),
    "parting early": (
        {
            "prompt": [user("hi")],
            "chosen": [assistant("a"), user("b"), assistant("c")],
            "rejected": [assistant("z")],
        },
        HI,
        "a\n\nuser: b\n\nassistant: c",
        "z",
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_pair_formats(tmp_path: Path, name: str) -> None:
    row, prompt, chosen, rejected = PAIRS[name]
    assert read_comparisons(write(tmp_path / "x.jsonl", row)) == [Comparison(prompt, chosen, rejected, p_left=1.0)]


def test_all_formats_in_one_file_keep_their_order(tmp_path: Path) -> None:
    found = read_comparisons(write(tmp_path / "x.jsonl", *(row for row, *_ in PAIRS.values())))
    assert [(c.prompt, c.left, c.right) for c in found] == [tuple(rest) for _, *rest in PAIRS.values()]


def test_margins_are_kept(tmp_path: Path) -> None:
    row = {"prompt": "p", "chosen": "a", "rejected": "b"}
    found = read_comparisons(write(tmp_path / "x.jsonl", {**row, "margin": 2}, {**row, "margin": None}))
    assert [c.margin for c in found] == [2.0, 0.0]


def test_ranks_give_all_pairs_with_one_unit_of_weight(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", {"prompt": "p", "completions": ["a", "b", "c"], "rank": [2, 1, 2]})
    found = [(c.left, c.right, c.p_left, c.weight) for c in read_comparisons(path)]
    assert found == [("a", "b", 0.0, 1 / 3), ("a", "c", 0.5, 1 / 3), ("b", "c", 1.0, 1 / 3)]


def test_ratings_give_all_pairs_and_stay_known(tmp_path: Path) -> None:
    row = {"prompt": "p", "completions": ["a", "b", "c"], "ratings": [2, 7.5, 2], "annotator": 3}
    found = read_comparisons(write(tmp_path / "x.jsonl", row))
    assert [(c.left, c.right, c.p_left) for c in found] == [("a", "b", 0.0), ("a", "c", 0.5), ("b", "c", 1.0)]
    assert [(c.left_rating, c.right_rating, c.annotator) for c in found] == [(2, 7.5, "3"), (2, 2, "3"), (7.5, 2, "3")]


def test_the_best_is_above_each_other_one_alone(tmp_path: Path) -> None:
    row = {"prompt": "p", "completions": ["a", "b", "c"], "best": 1, "annotator": "ann"}
    found = read_comparisons(write(tmp_path / "x.jsonl", row))
    assert [(c.left, c.right, c.p_left, c.weight, c.annotator) for c in found] == [
        ("b", "a", 1.0, 0.5, "ann"),
        ("b", "c", 1.0, 0.5, "ann"),
    ]


def test_strength_ties_and_scores_of_a_pair_are_kept(tmp_path: Path) -> None:
    row = {"prompt": "p", "chosen": "a", "rejected": "b", "strength": 3, "score_chosen": 8, "score_rejected": 2.5}
    tie = {"prompt": "p", "chosen": "a", "rejected": "b", "tie": True}
    one, two = read_comparisons(write(tmp_path / "x.jsonl", row, tie))
    assert (one.p_left, one.strength, one.left_rating, one.right_rating) == (1.0, 3, 8.0, 2.5)
    assert (two.p_left, two.strength, two.left_rating) == (0.5, 0, None)
    assert (one.swap().right_rating, one.swap().swap()) == (8.0, one)


def test_a_strength_a_moment_and_ratings_go_from_the_verdict_to_the_comparison() -> None:
    query = Query(HI, ("a", "b"))
    [told] = Verdict(query.id, "ann", "left", at=5.0, strength=2).comparisons(query)
    assert (told.strength, told.at, told.left_rating) == (2, 5.0, None)
    [told] = Verdict(query.id, "ann", "rating", scores=(1.0, 4.0)).comparisons(query)
    assert (told.p_left, told.left_rating, told.right_rating) == (0.0, 1.0, 4.0)
    assert "at" not in told.to_json(), "what is not said stands in no row, so older rows are the same rows"


def test_our_own_rows_come_back_whole(tmp_path: Path) -> None:
    whole = Comparison(HI, "a", "b", 0.3, 0.5, 1.5, "ann", "q1", "sft", "ppo", 2, 0.5, -1.0, 9.0)
    assert read_comparisons(write(tmp_path / "x.jsonl", whole.to_json())) == [whole]


def test_an_export_reads_as_the_store_does(tmp_path: Path) -> None:
    queries = [Query(Prompt(f"p{i}"), ("a", "b"), ("x", "y"), "test" if i == 2 else "train") for i in range(4)]
    with Store(tmp_path / "feedback.db") as store:
        store.add_queries(queries)
        answers = [Verdict(q.id, "ann", "right", at=i) for i, q in enumerate(queries)]
        store.add_verdicts(answers)
        store.retract(answers[0].id, "ann")
        store.export_jsonl(tmp_path / "out.jsonl")
        assert read_comparisons(tmp_path / "out.jsonl") == store.comparisons()
        assert read_comparisons(tmp_path / "out.jsonl", purpose="test") == store.comparisons(purpose="test")
        assert len(read_comparisons(tmp_path / "out.jsonl", purpose=None)) == 3
        assert read_queries(tmp_path / "out.jsonl") == queries


def test_lists_gzip_and_a_byte_order_mark_read_the_same(tmp_path: Path) -> None:
    rows = [{"prompt": "你好", "chosen": "a\u2028b", "rejected": "c"}, {"prompt": "q", "chosen": "d", "rejected": "e"}]
    lines = ("\r\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows)).encode()
    listed = json.dumps(rows, indent=1).encode()
    contents = [lines, listed, gzip.compress(lines), gzip.compress(listed), b"\xef\xbb\xbf" + lines]
    expected = [("你好", "a\u2028b"), ("q", "d")]
    for i, content in enumerate(contents):
        (tmp_path / f"{i}.json").write_bytes(content)
        assert [(c.prompt.text, c.left) for c in read_comparisons(tmp_path / f"{i}.json")] == expected


def test_prompts(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.jsonl",
        {"prompt": "plain", "answer": 4},
        {"prompt": [user("hi")]},
        {"messages": [user("hi"), assistant("yes")], "answer": 5},
        {"messages": [user("hi")]},
        {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yes"}]},
        {"chosen": f"{HUMAN} hi{ASSISTANT} yes"},
    )
    found = read_prompts(path)
    assert [p.text for p in found] == ["plain", HI.text, HI.text, HI.text, HI.text, f"{HUMAN} hi{ASSISTANT}"]
    assert [dict(p.columns) for p in found] == [{"answer": 4}, {}, {"answer": 5}, {}, {}, {}]
    (asked,) = read_prompts(write(tmp_path / "y.jsonl", {"question": "1+1?", "answer": "2"}), column="question")
    assert asked == Prompt("1+1?", {"answer": "2"})
    (tmp_path / "z.txt").write_text("one\r\n\ntwo\n")
    assert read_prompts(tmp_path / "z.txt") == [Prompt("one"), Prompt("two")]


def test_demonstrations(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.jsonl",
        {"prompt": "2+2=", "completion": "4"},
        {"prompt": [user("hi")], "completion": [assistant("yes")]},
        {"messages": [user("hi"), assistant("a"), user("b"), assistant("c"), user("d")]},
        {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yes"}]},
        {"chosen": f"{HUMAN} a{ASSISTANT} b{HUMAN} c{ASSISTANT} d", "rejected": "x"},
        {"text": "all of it"},
    )
    longer = Prompt((*HI.messages, Message("assistant", "a"), Message("user", "b")))
    assert read_demonstrations(path) == [
        Demonstration(Prompt("2+2="), "4"),
        Demonstration(HI, "yes"),
        Demonstration(longer, "c"),
        Demonstration(HI, "yes"),
        Demonstration(Prompt(f"{HUMAN} a{ASSISTANT} b{HUMAN} c{ASSISTANT}"), " d"),
        Demonstration(Prompt(""), "all of it"),
    ]
    (tmp_path / "y.txt").write_text("one\n\ntwo")
    assert [d.completion for d in read_demonstrations(tmp_path / "y.txt")] == ["one", "two"]
    once = Demonstration(HI, "yes")
    assert Demonstration.from_json(once.to_json()) == once


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ("a\nb\n\n \n\nc\n", ["a\nb", "c"]),
        ("a\nb\nc\n", ["a", "b", "c"]),
        ("a\r\nb\r\n\r\nc", ["a\nb", "c"]),
        ("\n\nonly\n", ["only"]),
    ],
)
def test_texts_of_a_plain_file(tmp_path: Path, content: str, texts: list[str]) -> None:
    (tmp_path / "x.txt").write_bytes(content.encode())
    assert read_texts(tmp_path / "x.txt") == texts
    (tmp_path / "x.txt.gz").write_bytes(gzip.compress(content.encode()))
    assert read_texts(tmp_path / "x.txt.gz") == texts


def test_texts_of_rows(tmp_path: Path) -> None:
    assert read_texts(write(tmp_path / "x.jsonl", {"text": "a"}, {"text": "b", "n": 1})) == ["a", "b"]


def test_queries(tmp_path: Path) -> None:
    row = {"prompt": "p", "completions": ["a", "b"], "policies": ["x", "y"], "purpose": "arena"}
    expected = Query(Prompt("p"), ("a", "b"), ("x", "y"), "arena")
    assert read_queries(write(tmp_path / "x.jsonl", row, expected.to_json())) == [expected, expected]


PREFERENCE_MISTAKES = [
    (
        {"prompt": "p", "choosen": "a", "rejected": "b"},
        "no column 'chosen'; found 'prompt', 'choosen', 'rejected'; is 'choosen' meant",
    ),
    ({"chosen": "a", "rejected": "b"}, "no column 'prompt'"),
    ({"chosen": [assistant("a")], "rejected": [assistant("b")]}, "no column 'prompt'"),
    ({"prompt": "p", "chosen": 3, "rejected": "b"}, "column 'chosen' should be text or a list of messages, not 3"),
    ({"prompt": "p", "chosen": [], "rejected": "b"}, r"column 'chosen' should be text or a list of messages, not \[\]"),
    ({"prompt": None, "chosen": "a", "rejected": "b"}, "column 'prompt' should be text or a list of messages"),
    ({"prompt": [{"role": "user"}], "chosen": "a", "rejected": "b"}, "a message in column 'prompt' should have text"),
    ({"prompt": "p", "chosen": "a", "rejected": "b", "margin": "big"}, "column 'margin' should be a number, not 'big'"),
    ({"prompt": "p", "chosen": "a", "rejected": "b", "margin": float("nan")}, "'margin' should be a number, not nan"),
    ({"chosen": f"{HUMAN} a", "rejected": f"{HUMAN} b"}, "share no .*Assistant"),
    ({"prompt": "p", "completions": ["a", "b"], "rank": [1]}, "2 completions with 1 ranks"),
    ({"prompt": "p", "completions": ["a", "b"], "rank": "12"}, "column 'rank' should be a list, not text"),
    ({"prompt": "p", "completions": ["a", "b"], "rank": ["1", None]}, "'rank' should be a list of numbers"),
    ({"prompt": "p", "completions": ["a", 2], "rank": [1, 2]}, "'completions' should be a list of texts"),
    ({"prompt": "p", "completions": ["a", "b"]}, "no column 'rank'"),
    ({"prompt": "p", "left": "a", "right": "b", "p_left": 2}, "p_left is a probability, not 2"),
    ({"prompt": "p", "left": "a", "right": "b", "p_left": 1, "wieght": 2}, "wieght"),
    ({"left": "a", "right": "b", "p_left": 1}, "no column 'prompt'"),
    ({"kind": "verdict", "verdict": Verdict("q7", "ann", "tie").to_json()}, "query q7 does not stand before"),
    ({"prompt": "\ud83d", "chosen": "a", "rejected": "b"}, "half a Unicode character"),
    ([1, 2], "expected an object with columns, not a list"),
    ({"prompt": "p", "completions": ["a", "b"], "ratings": [1, float("nan")]}, "'ratings' should be a list of numbers"),
    ({"prompt": "p", "completions": ["a", "b"], "ratings": [1]}, "2 completions with 1 ratings"),
    ({"prompt": "p", "completions": ["a", "b"], "best": 2}, "'best' should be the number of one of two or more"),
    ({"prompt": "p", "completions": ["a"], "best": 0}, "'best' should be the number of one of two or more"),
    ({"prompt": "p", "completions": ["a", "b"]}, "no column 'rank'"),
    ({"prompt": "p", "chosen": "a", "rejected": "b", "strength": 9}, "a strength goes from 1 to 4"),
    ({"prompt": "p", "chosen": "a", "rejected": "b", "strength": 1.5}, "a strength is a whole number"),
    ({"prompt": "p", "chosen": "a", "rejected": "b", "margin": -1}, "margin cannot be -1"),
    ({"prompt": "p", "chosen": "a", "rejected": "b", "score_chosen": float("nan")}, "'score_chosen' should be a number"),
    ({"prompt": "p", "chosen": "a", "rejected": "b", "tie": "yes"}, "'tie' should be true or false"),
]


@pytest.mark.parametrize(("row", "message"), PREFERENCE_MISTAKES)
def test_a_bad_preference_row_is_named(tmp_path: Path, row: object, message: str) -> None:
    good = {"prompt": "p", "chosen": "a", "rejected": "b"}
    with pytest.raises(DataError, match=rf"^\S*x\.jsonl, line 2: .*{message}"):
        read_comparisons(write(tmp_path / "x.jsonl", good, row))


@pytest.mark.parametrize(
    ("reader", "row", "message"),
    [
        (read_prompts, {"promt": "p"}, "no column 'prompt'; found 'promt'; is 'promt' meant"),
        (read_prompts, {"prompt": 3}, "'prompt' should be text or a list of messages"),
        (read_prompts, {}, "found none"),
        (read_demonstrations, {"prompt": "p", "completoin": "c"}, "no column 'completion'; .*'completoin' meant"),
        (read_demonstrations, {"question": "p"}, "no column 'prompt'"),
        (read_demonstrations, {"messages": [user("hi")]}, "no assistant turn after a prompt"),
        (read_demonstrations, {"text": 3}, "'text' should be text, not the number 3"),
        (read_texts, {"txt": "a"}, "no column 'text'"),
        (read_texts, {"text": None}, "'text' should be text, not empty"),
        (read_queries, {"prompt": "p"}, "no column 'completions'"),
        (read_queries, {"prompt": "p", "completions": ["a"]}, "at least two completions"),
        (read_queries, {"prompt": "p", "completions": "ab"}, "'completions' should be a list, not text"),
        (read_queries, {"prompt": {"text": "p", "x": 1}, "completions": ["a", "b"]}, "unexpected keyword"),
    ],
)
def test_a_bad_row_of_any_other_kind_is_named(tmp_path: Path, reader, row: object, message: str) -> None:
    with pytest.raises(DataError, match=rf"^\S*x\.jsonl, line 1: .*{message}"):
        reader(write(tmp_path / "x.jsonl", row))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"prompt": "p"}\n{"prompt"\n', r"line 2: not valid JSON: .* at column"),
        (b'[{"prompt": "p"},\n{"prompt" "q"}]', r"line 2: not valid JSON"),
        (b'{"prompt": "\xff"}', "line 1: not UTF-8 text"),
        (b"", "holds no rows"),
        (b"[]", "holds no rows"),
        (b"\n \n", "holds no rows"),
        (gzip.compress(b'{"prompt": "p"}', mtime=0)[:-9], "damaged gzip file"),
        (b"\x1f\x8bnonsense", "damaged gzip file"),
        (b"[" * 5000, "nested too deeply|not valid JSON"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"x\.jsonl.*({message})"):
        read_prompts(path)


def test_a_missing_file_a_folder_and_a_blank_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no file .*gone\.jsonl"):
        read_comparisons(tmp_path / "gone.jsonl")
    with pytest.raises(DataError, match=r"there is no file gone/prefs\.json"):
        read_comparisons("gone/prefs.json")
    with pytest.raises(DataError, match="is a folder; give one of the files"):
        read_comparisons(tmp_path)
    (tmp_path / "x.txt").write_text(" \n\n")
    with pytest.raises(DataError, match="holds no text"):
        read_texts(tmp_path / "x.txt")


def test_a_hub_name_is_loaded_by_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def load_dataset(name: str, split: str) -> list[dict[str, str]]:
        calls.append((name, split))
        return [{"prompt": "p", "chosen": "a", "rejected": "b"}]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert read_comparisons("org/prefs")[0].chosen == "a"
    assert load_rows("org/prefs:test_prefs")[0].where == "org/prefs:test_prefs, row 1"
    assert calls == [("org/prefs", "train"), ("org/prefs", "test_prefs")]

    def offline(_name: str, split: str) -> None:
        raise ConnectionError(f"no network for {split}")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=offline))
    with pytest.raises(DataError, match="no file org/prefs, nor can it be loaded as a data set: no network for train"):
        load_rows("org/prefs")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'backflip\[data\]'"):
        load_rows("org/prefs")


turn = st.text(st.sampled_from("ab :\nHumanAssistant"), max_size=12)


@settings(max_examples=60)
@given(st.lists(turn, min_size=1, max_size=3), turn, turn)
def test_an_hh_pair_is_only_cut_never_changed(shared: list[str], left: str, right: str) -> None:
    beginning = "".join(f"{HUMAN} {text}{ASSISTANT}" for text in shared)
    prompt, chosen, rejected = split_hh_pair(beginning + left, beginning + right, "here")
    assert (prompt + chosen, prompt + rejected) == (beginning + left, beginning + right)
    assert prompt.endswith(ASSISTANT)
    assert prompt.startswith(beginning)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "n"), [("hh_harmless.jsonl.gz", 1800), ("dpo_en_demo.json.gz", 300), ("dpo_zh_demo.json.gz", 300)]
)
def test_real_preference_data(shared_data: Path, name: str, n: int) -> None:
    found = read_comparisons(shared_data / name)
    assert len(found) == n
    assert all(c.prompt.plain.strip() and c.p_left == 1.0 for c in found)


@pytest.mark.realdata
def test_the_shorter_reply_of_hh_wins_a_little_more_often(shared_data: Path) -> None:
    """An outside number: "pick the shorter last reply" is right 55.3 % on the full split, standard error here 1.2."""
    found = [c for c in read_comparisons(shared_data / "hh_harmless.jsonl.gz") if len(c.left) != len(c.right)]
    assert sum(len(c.left) < len(c.right) for c in found) / len(found) == pytest.approx(0.553, abs=0.03)


@pytest.mark.realdata
def test_real_texts_and_prompts(shared_data: Path) -> None:
    assert len(read_texts(shared_data / "tinyshakespeare.txt")) > 7000
    sums = read_prompts(shared_data / "gsm8k_test_first500.jsonl.gz", column="question")
    assert len(sums) == 500
    assert all("####" in p.columns["answer"] for p in sums)
    assert len(read_demonstrations(shared_data / "kto_en_demo.json.gz")) == 300
