"""Verifiers: which tokens are marked with what, the loss by hand, and that right and wrong are told apart."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny_encoders import save_encoder
from tests.tiny_models import tiny

from backflip.errors import ConfigError, DataError
from backflip.feedback.marks import Marked, read_marked
from backflip.records import Prompt
from backflip.rewards.learned import RewardModel
from backflip.rewards.steps import StepRewards
from backflip.runs import Run
from backflip.seeds import Seeds
from backflip.settings import Optim, Reward
from backflip.train.verifier import _share, encode, fit_verifier, measure_verifier, split_prompts

torch.set_num_threads(1)

PROMPT = Prompt("the film")
FIT = Reward(
    batch_size=8, epochs=4.0, holdout=0.25, max_length=48, score_at="last", log_every=2,
    optim=Optim(learning_rate=5e-3, adam_eps=1e-8, adam_eps_convention="torch"),
)  # fmt: skip


def model_of(score_at: Any = "last", max_length: int = 48) -> RewardModel:
    return RewardModel.from_policy(tiny(), seeds=Seeds(0), score_at=score_at, max_length=max_length)


def whole(text: str, right: bool, prompt: Prompt = PROMPT) -> Marked:
    return Marked(prompt, text, ((len(text), right),))


# ---------------------------------------------------------------------------------------------------------- rows


def test_rows_of_outcomes_and_steps(tmp_path: Path) -> None:
    rows = [
        {"prompt": "p", "completion": "abc", "label": 1},
        {"prompt": "p", "completions": ["ab", "c\n", "d"], "labels": [True, False, True]},
    ]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    one, steps = read_marked(tmp_path / "m.jsonl")
    assert one == Marked(Prompt("p"), "abc", ((3, True),))
    assert steps == Marked(Prompt("p"), "ab\nc\nd", ((3, True), (5, False), (6, True)))
    assert (one.right, steps.right) == (True, False)
    assert Marked.from_json(json.loads(json.dumps(steps.to_json()))) == steps


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "p", "completion": "a"}, "no column 'label'"),
        ({"prompt": "p", "completion": "a", "label": "yes"}, "should say true or false"),
        ({"prompt": "p", "completion": "a", "label": 0.5}, "should say true or false"),
        ({"prompt": "p", "completions": ["a"], "labels": [True, False]}, "1 steps with 2 labels"),
        ({"prompt": "p", "completions": [], "labels": []}, "0 steps with 0 labels"),
        ({"completions": ["a"], "labels": [True]}, "no column 'prompt'"),
    ],
)
def test_a_bad_row_is_named(row: dict[str, Any], words: str, tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text(json.dumps({"prompt": "p", "completion": "a", "label": 1}) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(DataError, match=f"line 2: .*{words}"):
        read_marked(tmp_path / "m.jsonl")


def test_marks_lie_inside_the_text() -> None:
    for marks in ((), ((4, True),), ((-1, True),)):
        with pytest.raises(ValueError, match="marked at one place or more"):
            Marked(PROMPT, "abc", marks)


# --------------------------------------------------------------------------------------------------------- marks


def test_an_outcome_is_read_where_the_score_is_and_tokens_all_bear_it() -> None:
    for score_at, more in (("last", 0), ("eos", 1)):
        model = model_of(score_at)
        own = len(model.tokenizer("abc", add_special_tokens=False)["input_ids"])
        one, every = (encode(model, whole("abc", False), kind) for kind in ("outcome", "token"))
        assert one.ids == every.ids == model.encode(PROMPT, "abc")
        assert (one.places, one.labels) == ([len(one.ids) - 1], [0.0])
        assert every.places == list(range(len(one.ids) - own - more, len(one.ids)))
        assert set(every.labels) == {0.0}


def test_a_step_is_marked_on_the_token_that_ends_it() -> None:
    model, text = model_of(), "ab\ncd\nef"
    row = encode(model, Marked(PROMPT, text, ((3, True), (6, False), (8, True))), "step")
    assert row.labels == [1.0, 0.0, 1.0]
    before = len(model.encode(PROMPT, ""))
    for place, end in zip(row.places, (3, 6, 8), strict=True):
        read = model.tokenizer.decode(row.ids[before : place + 1])
        assert read[:end].startswith(text[:end].rstrip("\n"))
        assert len(read) >= end - 1
    assert row.places == sorted(set(row.places))


def test_what_is_cut_off_takes_its_marks_with_it() -> None:
    model, text = model_of(max_length=4), "ab\ncd\nef"
    row = encode(model, Marked(PROMPT, text, ((3, True), (6, False), (8, True))), "step")
    assert len(row.ids) == 4
    assert row.labels[-1] == 1.0
    assert len(row.labels) < 3
    assert min(row.places) >= 0
    assert encode(model, whole(text * 5, True), "token").places == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", ["outcome", "token", "step"])
def test_the_loss_by_hand_and_in_parts(kind: Any) -> None:
    model = model_of()
    texts = [
        Marked(PROMPT, "ab\ncd", ((3, True), (5, False))),
        whole("zz", True),
        Marked(PROMPT, "a\nb\nc", ((2, True), (5, True))),
    ]
    rows = [encode(model, text, kind) for text in texts]
    expected = 0.0
    for row in rows:
        scores = model.token_scores(torch.tensor([row.ids]), torch.ones(1, len(row.ids), dtype=torch.long))[0]
        each = [
            math.log1p(math.exp(-s)) if y else math.log1p(math.exp(s))
            for s, y in zip(scores[row.places].tolist(), row.labels, strict=True)
        ]
        expected += sum(each) / len(each) / 3
    assert _share(model, rows, 3).loss.item() == pytest.approx(expected, rel=1e-5)
    parts = [_share(model, rows[:1], 3).loss.item(), _share(model, rows[1:], 3).loss.item()]
    assert sum(parts) == pytest.approx(expected, rel=1e-5)


# ------------------------------------------------------------------------------------------------------ learning


def sums(n: int = 120) -> list[Marked]:
    """Lines of letters; a line with a z is wrong."""
    draw, made = random.Random(0), []
    for i in range(n):
        steps = ["".join(draw.choice("ae") for _ in range(3)) for _ in range(3)]
        if i % 2:
            steps[draw.randrange(3)] = "zzz"
        text, marks = "", []
        for j, step in enumerate(steps):
            text += step + ("\n" if j < 2 else "")
            marks.append((len(text), "z" not in step))
        made.append(Marked(Prompt(f"film {i}"), text, tuple(marks)))
    return made


@pytest.mark.parametrize("kind", ["outcome", "token", "step"])
def test_right_and_wrong_are_told_apart(kind: Any, tmp_path: Path) -> None:
    model = model_of()
    with Run.open(tmp_path / "run", kind="reward", settings=FIT, quiet=True) as run:
        report = fit_verifier(model, sums(), FIT, run, seeds=Seeds(0), granularity=kind)
    assert report.accuracy > report.majority
    assert report.area is not None
    assert report.area > 0.9
    assert report.n == (90 if kind == "step" else 30)
    assert model.gain.item() == 1.0
    if kind == "step":
        [process] = StepRewards(model)(["film 0"], ["aea\nzzz\naea"])
        first, second, _ = (span.reward for span in process.spans)
        assert first > 0 > second, "the fault is found where it is"


def test_everything_on_one_prompt_stays_on_one_side() -> None:
    texts = [whole("a", bool(i % 2), Prompt(f"p{i % 6}")) for i in range(24)]
    train, held = split_prompts(texts, 0.34, Seeds(0))
    assert {t.prompt.text for t in train}.isdisjoint({t.prompt.text for t in held})
    assert (len(train), len(held)) == (16, 8)


def test_what_cannot_be_marked_or_learned(tmp_path: Path) -> None:
    with Run.open(tmp_path / "run", kind="reward", settings=FIT, quiet=True) as run:
        with pytest.raises(DataError, match="all 2 texts are marked alike"):
            fit_verifier(
                model_of(),
                [whole("a", True)] * 2,
                dataclasses.replace(FIT, holdout=0.0),
                run,
                seeds=Seeds(0),
                granularity="token",
            )
        with pytest.raises(ConfigError, match="set score_at to last"):
            fit_verifier(model_of("eos"), sums(4), FIT, run, seeds=Seeds(0), granularity="step")
        encoder = RewardModel.load(save_encoder(tmp_path / "m", classifier=True), device="cpu")
        with pytest.raises(ConfigError, match="mark outcomes, or use a decoder"):
            fit_verifier(encoder, sums(4), FIT, run, seeds=Seeds(0), granularity="token")
    report = measure_verifier(encoder, sums(6), "outcome")
    assert (report.n, report.majority) == (6, 0.5)
    assert measure_verifier(encoder, [whole("a", True)], "outcome").area is None
