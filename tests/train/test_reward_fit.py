"""Fitting a reward model: what is held out, what is measured, and that a hidden taste is found."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny_models import tiny, tiny_of

from backflip.errors import DataError
from backflip.records import Comparison, Prompt, Query, Sample, Verdict
from backflip.rewards.learned import RewardModel
from backflip.rewards.protocol import score
from backflip.runs import Run
from backflip.runs.logs import read_lines
from backflip.seeds import Seeds
from backflip.settings import Optim, Reward
from backflip.train.comparisons import split_questions
from backflip.train.reward import fit_reward, measure

torch.set_num_threads(1)

FIT = Reward(
    batch_size=16, epochs=4.0, holdout=0.2, log_every=2, max_length=48, normalization_samples=60,
    optim=Optim(learning_rate=5e-3, adam_eps=1e-8, adam_eps_convention="torch"),
)  # fmt: skip


def opinions(n: int = 160, seed: int = 0) -> list[Comparison]:
    """Somebody who likes the letter z."""
    draw = random.Random(seed)
    texts = ["".join(draw.choice("aez") for _ in range(6)) for _ in range(2 * n)]
    made = []
    for i, (left, right) in enumerate(zip(texts[::2], texts[1::2], strict=True)):
        a, b = left.count("z"), right.count("z")
        made.append(Comparison(Prompt(f"the film {i}"), left, right, p_left=0.5 if a == b else float(a > b)))
    return made


class Table(RewardModel):
    """A reward model that reads its scores from a dictionary."""

    def __init__(self, scores: dict[str, float]) -> None:
        self.table = scores

    def __call__(self, prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[float]:
        return [self.table[c] for c in completions]


def test_a_hidden_taste_is_found_and_the_scores_are_scaled(tmp_path: Path) -> None:
    model = RewardModel.from_policy(tiny(), seeds=Seeds(0), max_length=48)
    comparisons = opinions()
    samples = [Sample(c.prompt, c.left) for c in comparisons[:60]]
    with Run.open(tmp_path / "run", kind="reward", settings=FIT, quiet=True) as run:
        report = fit_reward(model, comparisons, FIT, run, seeds=Seeds(0), samples=samples)
    assert report.accuracy > 0.85
    assert report.accuracy_low < report.accuracy <= report.accuracy_high <= 1
    assert report.shorter_low < 0.5 < report.shorter_high
    assert report.log_loss < 0.6
    assert report.n == sum(c.p_left != 0.5 for q in split_questions(comparisons, 0.2, Seeds(0))[1] for c in q)
    scores = torch.tensor(score(model, [s.prompt for s in samples], [s.text for s in samples]))
    assert scores.mean().item() == pytest.approx(0, abs=1e-4)
    assert scores.std(unbiased=False).item() == pytest.approx(1, abs=1e-4)
    assert model.gain.item() == 1.0
    lines = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert set(lines[0]) == {"step", "loss/reward", "grad_norm", "lr", "gain"}
    assert lines[-1]["step"] == 4 * 128 // 16
    assert lines[-1]["loss/reward"] < lines[0]["loss/reward"] - 0.1
    assert lines[-1]["gain"] != lines[0]["gain"]


def test_the_gain_and_the_scaling_can_be_left_out(tmp_path: Path) -> None:
    settings = Reward(
        batch_size=16, max_length=48, train_gain=False, normalize_before=False, normalize_after=False, holdout=0.0,
        dropout=True, log_every=1, optim=Optim(learning_rate=1e-3),
    )  # fmt: skip
    model = RewardModel.from_policy(tiny_of("gpt2", dropout=0.2), seeds=Seeds(0), max_length=48)
    with Run.open(tmp_path / "run", kind="reward", settings=settings, quiet=True) as run:
        fit_reward(model, opinions(32), settings, run, seeds=Seeds(0))
    assert [line["gain"] for line in read_lines(tmp_path / "run" / "metrics.jsonl")] == [1.0, 1.0]
    assert model.bias == 0.0
    assert model.gain.requires_grad
    # Dropout is off again afterwards.
    assert model(["a"], ["b"]) == model(["a"], ["b"])


def test_there_must_be_something_to_compare(tmp_path: Path) -> None:
    model = RewardModel.from_policy(tiny(), seeds=Seeds(0))
    with (
        Run.open(tmp_path / "run", kind="reward", settings=FIT, quiet=True) as run,
        pytest.raises(DataError, match="there are no comparisons to learn from"),
    ):
        fit_reward(model, [], FIT, run, seeds=Seeds(0))


def test_prompts_never_stand_on_both_sides_and_rankings_stay_whole() -> None:
    comparisons: list[Comparison] = []
    for i in range(30):
        query = Query(Prompt(f"p{i % 12}"), (f"a{i}", f"b{i}", f"c{i}"))
        comparisons += Verdict(query.id, "ann", "ranking", ((0,), (2,), (1,))).comparisons(query)
    comparisons += [Comparison(Prompt("p1"), "x", "y", p_left=1.0), Comparison(Prompt("p1"), "x", "z", p_left=1.0)]
    train, held = split_questions(comparisons, 0.25, Seeds(0))
    assert len(train) + len(held) == 32
    assert {len(q) for q in train + held} == {1, 3}
    prompts = [{c.prompt.id for q in side for c in q} for side in (train, held)]
    assert len(prompts[1]) == 3
    assert prompts[0] & prompts[1] == set()
    assert split_questions(comparisons, 0.25, Seeds(0)) == (train, held)
    assert split_questions(comparisons, 0.25, Seeds(1)) != (train, held)


def test_the_report_by_hand() -> None:
    table = Table({"good": 2.0, "bad": 0.0, "longer": 1.0, "even": 0.0})
    prompt = Prompt("x")
    report = measure(
        table,
        [
            Comparison(prompt, "good", "bad", p_left=1.0),  # right; and the longer one won
            Comparison(prompt, "longer", "bad", p_left=0.0),  # wrong; and the shorter one won
            Comparison(prompt, "even", "bad", p_left=0.0),  # no difference in score: half; the shorter one won
            Comparison(prompt, "good", "longer", p_left=0.5),  # a tie counts for neither
        ],
    )
    assert report.n == 3
    assert report.accuracy == pytest.approx(1.5 / 3)
    assert report.shorter_accuracy == pytest.approx(2 / 3)
    sigmoid = [1 / (1 + 2.718281828459045**-d) for d in (2.0, 1.0, 0.0, 1.0)]
    beliefs = [1.0, 0.0, 0.0, 0.5]
    loss = [
        -(b * torch.tensor(s).log() + (1 - b) * (1 - torch.tensor(s)).log()).item() for s, b in zip(sigmoid, beliefs, strict=True)
    ]
    assert report.log_loss == pytest.approx(sum(loss) / 4, rel=1e-5)
    # Bins, each pair seen from both sides: 0.88 alone, the two of 0.73 together (belief ¼ on average), their mirror images,
    # and 0.5 beside its own, which is right however the pair went.
    gaps = [abs(sigmoid[0] - 1), abs(sigmoid[1] - 0.25)]
    assert report.calibration_error == pytest.approx((gaps[0] + 2 * gaps[1]) / 4, rel=1e-6)
    xy = torch.tensor([[2.0, 1.0, 0.0, 1.0], [1.0, 3.0, 1.0, -2.0]])
    assert report.length_correlation == pytest.approx(torch.corrcoef(xy)[0, 1].item(), rel=1e-5)
    swapped = measure(table, [Comparison(prompt, "good", "bad", p_left=1.0).swap()])
    assert (swapped.accuracy, swapped.shorter_accuracy, swapped.length_correlation) == (1.0, 0.0, 0.0)
    pairs = [Comparison(prompt, "good", "bad", p_left=1.0), Comparison(prompt, "longer", "good", p_left=1.0)]
    mirrored = [pairs[0], pairs[1].swap()]
    assert measure(table, pairs).calibration_error == pytest.approx(measure(table, mirrored).calibration_error)


def test_ties_alone_say_nothing_about_accuracy() -> None:
    report = measure(Table({"a": 1.0, "b": 0.0}), [Comparison(Prompt("x"), "a", "b", p_left=0.5)])
    assert (report.n, report.accuracy) == (0, 0.0)
    assert (report.accuracy_low, report.accuracy_high) == (0.0, 1.0)
    assert report.log_loss == pytest.approx(0.5 * (1.3132617 + 0.3132617), rel=1e-6)
