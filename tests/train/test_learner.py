"""One guarded step: micro-batches, clipping, and numbers that cannot be right."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny_models import gradients, tiny
from torch import Tensor, nn

from backflip.errors import NumericsError
from backflip.maths.preference import bradley_terry
from backflip.records import Comparison, Prompt, Query, Verdict
from backflip.rewards.learned import RewardModel
from backflip.seeds import Seeds
from backflip.settings import Optim, Reward
from backflip.train import objectives
from backflip.train import reward as reward_loop
from backflip.train import sft as sft_loop
from backflip.train.examples import Example
from backflip.train.learner import Learner, Share

torch.set_num_threads(1)


class Line(nn.Module):
    """y = w·x; the loss of rows x is Σ (w·x − 1)² / n."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.5, -0.25], dtype=torch.float64))

    def loss(self, rows: Sequence[Any], n: int) -> Tensor:
        return (torch.tensor(rows, dtype=torch.float64) @ self.w - 1).square().sum() / n


ROWS = [[1.0, 2.0], [3.0, -1.0], [0.5, 0.5], [2.0, 2.0], [-1.0, 4.0]]


def line_update(**changes: Any) -> tuple[Any, Tensor, Tensor]:
    """The report of one update, the weights after it and the gradient it used."""
    line = Line()
    learner = Learner(line.named_parameters(), dataclasses.replace(Optim(learning_rate=0.1), **changes), total=10)
    update = learner.update(ROWS, lambda rows: Share(line.loss(rows, len(ROWS)), len(rows)))
    assert line.w.grad is not None
    return update, line.w.detach(), line.w.grad


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64])
def test_an_update_is_the_same_whatever_the_micro_batches(size: int) -> None:
    update, weights, _ = line_update(micro_batch_size=size)
    whole, expected, _ = line_update(micro_batch_size=5)
    assert update.loss == pytest.approx(whole.loss, rel=1e-14)
    assert update.grad_norm == pytest.approx(whole.grad_norm, rel=1e-14)
    torch.testing.assert_close(weights, expected, rtol=0, atol=1e-14)
    assert update.learning_rate == 0.1


def test_the_norm_reported_is_the_one_before_clipping() -> None:
    free, _, gradient = line_update(max_grad_norm=None)
    assert free.grad_norm == pytest.approx(gradient.norm().item(), rel=1e-12)
    clipped, _, small = line_update(max_grad_norm=0.5)
    assert clipped.grad_norm == pytest.approx(free.grad_norm, rel=1e-12)
    torch.testing.assert_close(small, gradient * 0.5 / free.grad_norm, rtol=1e-5, atol=0)
    _, _, same = line_update(max_grad_norm=100.0)
    torch.testing.assert_close(same, gradient, rtol=0, atol=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("where", [0, 4])
def test_a_loss_that_is_no_number_changes_nothing(bad: float, where: int) -> None:
    line = Line()
    learner = Learner(line.named_parameters(), Optim(learning_rate=0.1, micro_batch_size=2), total=10)
    rows = [list(row) for row in ROWS]
    rows[where][0] = bad
    with pytest.raises(NumericsError, match=r"the loss of update 1 is (nan|inf), so nothing was changed"):
        learner.update(rows, lambda part: Share(line.loss(part, 5)))
    assert line.w.tolist() == [0.5, -0.25]
    assert learner.optimizer.t == 0
    assert learner.optimizer.m["w"].abs().max() == 0


def test_a_gradient_that_is_no_number_changes_nothing() -> None:
    line = Line()
    learner = Learner(line.named_parameters(), Optim(learning_rate=0.1), total=10)

    def loss(rows: Sequence[Any]) -> Share:  # finite, with an infinite slope
        return Share((line.w - line.w.detach()).abs().sqrt().sum())

    with pytest.raises(NumericsError, match="the gradient of update 1 is not finite, so nothing was changed"):
        learner.update(ROWS, loss)
    assert line.w.tolist() == [0.5, -0.25]
    assert learner.optimizer.t == 0
    # The next good update is as if nothing had happened.
    update = learner.update(ROWS, lambda rows: Share(line.loss(rows, 5)))
    assert update.grad_norm == pytest.approx(line_update()[0].grad_norm)


def test_the_learning_rate_follows_the_updates_made(tmp_path: Path) -> None:
    line = Line()
    learner = Learner(line.named_parameters(), Optim(learning_rate=1.0), total=4)
    rates = [learner.update(ROWS, lambda rows: Share(line.loss(rows, 5))).learning_rate for _ in range(2)]
    learner.save(tmp_path / "optimizer.safetensors")
    again = Learner(line.named_parameters(), Optim(learning_rate=1.0), total=4)
    again.load(tmp_path / "optimizer.safetensors")
    rates += [again.update(ROWS, lambda rows: Share(line.loss(rows, 5))).learning_rate for _ in range(2)]
    assert rates == [1.0, 0.75, 0.5, 0.25]


def test_notes_come_back_slice_by_slice() -> None:
    update, _, _ = line_update(micro_batch_size=2)
    assert update.notes == [2, 2, 1]


# Slices of rows


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([4, 4, 4, 4, 4], [2, 2, 1]),
        ([1, 1, 1, 1, 1], [3, 2]),  # the row limit of 3 comes first
        ([9, 1, 1, 20, 1], [1, 2, 1, 1]),  # a row beyond the budget goes alone
        ([8, 8, 8, 8, 8], [1, 1, 1, 1, 1]),
        (None, [3, 2]),
    ],
)
def test_slices_keep_the_row_limit_and_the_token_budget(tokens: list[int] | None, expected: list[int]) -> None:
    learner = Learner(Line().named_parameters(), Optim(micro_batch_size=3, micro_batch_tokens=8), total=1)
    slices = learner.slices(5, tokens)
    assert [part.stop - part.start for part in slices] == expected
    assert [i for part in slices for i in range(5)[part]] == list(range(5))


@given(tokens=st.lists(st.integers(1, 50), min_size=1, max_size=40), limit=st.integers(1, 9), budget=st.integers(1, 60))
def test_slices_are_whole_in_order_and_within_both_limits(tokens: list[int], limit: int, budget: int) -> None:
    learner = Learner(Line().named_parameters(), Optim(micro_batch_size=limit, micro_batch_tokens=budget), total=1)
    slices = learner.slices(len(tokens), tokens)
    assert [i for part in slices for i in range(len(tokens))[part]] == list(range(len(tokens)))
    for part in slices:
        size = part.stop - part.start
        assert 1 <= size <= limit
        assert size == 1 or sum(tokens[part]) <= budget


@pytest.mark.parametrize(
    "problem",
    [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("DefaultCPUAllocator: not enough memory")],
)
def test_rows_that_do_not_fit_are_halved_and_the_gradient_is_the_same(problem: Exception) -> None:
    _, expected, gradient = line_update(micro_batch_size=5)
    line, said = Line(), []
    learner = Learner(line.named_parameters(), Optim(learning_rate=0.1, micro_batch_size=5), total=10, say=said.append)
    seen: list[int] = []

    def loss(rows: Sequence[Any]) -> Share:
        seen.append(len(rows))
        if len(rows) > 2 or len(seen) == 3:  # the second call fits, and what it leaves behind must not count twice
            raise problem
        return Share(line.loss(rows, 5), rows)

    update = learner.update(ROWS, loss)
    assert seen == [5, 2, 2, 1, 1, 1, 1, 1]
    assert update.notes == [[row] for row in ROWS]
    assert len(said) == 2
    assert "out of memory with 5 rows at a time" in said[0]
    assert line.w.grad is not None
    torch.testing.assert_close(line.w.grad, gradient, rtol=0, atol=1e-12)
    torch.testing.assert_close(line.w.detach(), expected, rtol=0, atol=1e-12)
    # From then on it starts with what fitted.
    seen.clear()
    learner.update(ROWS, lambda rows: Share(line.loss(rows, 5), seen.append(len(rows))))
    assert seen == [1, 1, 1, 1, 1]


def test_a_single_row_that_does_not_fit_is_an_error_and_so_is_any_other_fault() -> None:
    line = Line()
    learner = Learner(line.named_parameters(), Optim(learning_rate=0.1, micro_batch_size=4), total=10)

    def full(rows: Sequence[Any]) -> Share:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        learner.update(ROWS, full)
    assert learner.optimizer.t == 0

    def broken(rows: Sequence[Any]) -> Share:
        raise RuntimeError("shapes do not fit")

    halvings = learner.halvings
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        learner.update(ROWS, broken)
    assert learner.halvings == halvings


# The losses of the loops, in float64 on a real model


def test_sft_gradients_do_not_depend_on_micro_batches() -> None:
    rows = [
        Example([5, 6], [7, 8, 9]),
        Example([10], [11]),
        Example([5] * 7, [12, 13, 14, 15, 1]),
        Example([3], [4, 1]),
    ]
    n = sum(len(row.response) for row in rows)
    found, losses = [], []
    for size in (4, 3, 1):
        policy = tiny()
        policy.model.double()
        learner = Learner(policy.parameters(), Optim(learning_rate=0.0, max_grad_norm=None, micro_batch_size=size), total=1)
        losses.append(learner.update(rows, partial(sft_loop._share, policy, n_tokens=n)).loss)
        found.append(gradients(policy.parameters()))
    assert losses[1] == pytest.approx(losses[0], rel=1e-12)
    for other in found[1:]:
        for name, gradient in found[0].items():
            torch.testing.assert_close(other[name], gradient, rtol=0, atol=1e-10)


def ranked(prompt: str, texts: tuple[str, ...], ranking: tuple[tuple[int, ...], ...]) -> list[Comparison]:
    """The comparisons of one ranking."""
    query = Query(Prompt(prompt), texts)
    return Verdict(query.id, "ann", "ranking", ranking).comparisons(query)


QUESTIONS = [
    [Comparison(Prompt("the film"), "was good.", "was dull and long.", p_left=1.0)],
    ranked("a cat", ("sat", "saw a dog", "on the mat", "no"), ((2,), (0, 1), (3,))),
    [Comparison(Prompt("no"), "end", "film", p_left=0.25, weight=3.0, margin=0.5)],
    ranked("the plot", ("was", "sat", "ever"), ((1,), (2,), (0,))),
]


def test_reward_gradients_do_not_depend_on_micro_batches() -> None:
    weight = sum(c.weight for question in QUESTIONS for c in question)
    assert weight == pytest.approx(1 + 1 + 3 + 1)
    found, losses = [], []
    for size in (4, 3, 1):
        model = RewardModel.from_policy(tiny(), seeds=Seeds(0))
        model.model.double()
        model.gain.data = torch.tensor(1.5, dtype=torch.float64)
        settings = Optim(learning_rate=0.0, max_grad_norm=None, micro_batch_size=size)
        learner = Learner(model.parameters(), settings, total=1)
        whole = objectives.units(QUESTIONS, Reward(), Seeds(0))
        encoded = reward_loop._encode(model, whole)
        share = partial(reward_loop._share, model, encoded, settings=Reward(), weight=weight)
        losses.append(learner.update(whole, share).loss)
        found.append(gradients(model.parameters()))
    assert losses[1] == pytest.approx(losses[0], rel=1e-12)
    assert found[0].keys() == found[1].keys() == found[2].keys()
    assert found[0]["gain"].abs() > 1e-6
    for other in found[1:]:
        for name, gradient in found[0].items():
            torch.testing.assert_close(other[name], gradient, rtol=0, atol=1e-10)


def test_the_reward_loss_is_bradley_terry_over_all_pairs() -> None:
    model = RewardModel.from_policy(tiny(), seeds=Seeds(0))
    model.normalize([0.0, 0.2])
    weight = sum(c.weight for question in QUESTIONS for c in question)
    pairs = [c for question in QUESTIONS for c in question]
    assert len(pairs) == 1 + 6 + 1 + 3
    left, right = (
        torch.tensor(model([c.prompt.text for c in pairs], [getattr(c, side) for c in pairs])) for side in ("left", "right")
    )
    column = {n: torch.tensor([getattr(c, n) for c in pairs]) for n in ("p_left", "margin", "weight")}
    expected = bradley_terry(left, right, column["p_left"], margin_N=column["margin"], weight_N=column["weight"]).loss
    whole = objectives.units(QUESTIONS, Reward(), Seeds(0))
    found = reward_loop._share(model, reward_loop._encode(model, whole), whole, Reward(), weight).loss
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
