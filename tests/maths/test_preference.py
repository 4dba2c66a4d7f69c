from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from backflip.maths.preference import bradley_terry, cdpo, dpo, ipo, pick_best

score = st.floats(-30.0, 30.0)
belief = st.floats(0.0, 1.0)


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_bradley_terry_by_hand() -> None:
    found = bradley_terry(vector(1.0, 0.0, 2.0), vector(0.0, 0.0, 5.0))
    expected = [math.log1p(math.exp(-1)), math.log(2), math.log1p(math.exp(3))]
    assert found.loss.item() == pytest.approx(sum(expected) / 3)
    assert found.accuracy.item() == pytest.approx((1 + 0.5 + 0) / 3)
    assert found.decided.item() == 3


@given(left=score, right=score, p=belief, margin=st.floats(0.0, 5.0))
def test_swapping_the_sides_changes_nothing(left: float, right: float, p: float, margin: float) -> None:
    there = bradley_terry(vector(left), vector(right), vector(p), margin_N=vector(margin))
    back = bradley_terry(vector(right), vector(left), vector(1 - p), margin_N=vector(margin))
    assert there.loss.item() == pytest.approx(back.loss.item(), rel=1e-9, abs=1e-12)
    shifted = bradley_terry(vector(left + 3.0), vector(right + 3.0), vector(p), margin_N=vector(margin))
    assert shifted.loss.item() == pytest.approx(there.loss.item(), rel=1e-9, abs=1e-9)


@given(gap=score, p=belief)
def test_it_is_the_cross_entropy_and_its_minimum_the_log_odds(gap: float, p: float) -> None:
    leaf_N = vector(gap).requires_grad_()
    loss = bradley_terry(leaf_N, vector(0.0), vector(p)).loss
    reference = torch.nn.functional.binary_cross_entropy_with_logits(leaf_N, vector(p))
    assert loss.item() == pytest.approx(reference.item(), rel=1e-9, abs=1e-12)
    (grad,) = torch.autograd.grad(loss, leaf_N)
    assert grad.item() == pytest.approx(torch.sigmoid(vector(gap)).item() - p, abs=1e-12)


def test_ties_pull_scores_together_and_do_not_count_as_right_or_wrong() -> None:
    leaf_N = vector(3.0).requires_grad_()
    found = bradley_terry(leaf_N, vector(0.0), vector(0.5))
    assert torch.autograd.grad(found.loss, leaf_N)[0].item() > 0
    assert (found.accuracy.item(), found.decided.item()) == (0.0, 0)


@pytest.mark.parametrize("gap", [1e4, -1e4, 1e300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_huge_gaps_stay_finite(gap: float, dtype: torch.dtype) -> None:
    gap = min(gap, 1e38) if dtype == torch.float32 else gap
    leaf_N = torch.tensor([gap], dtype=dtype, requires_grad=True)
    for p in (0.0, 0.5, 1.0):
        found = bradley_terry(leaf_N, torch.zeros(1, dtype=dtype), torch.tensor([p], dtype=dtype))
        assert found.loss.isfinite()
        assert torch.autograd.grad(found.loss, leaf_N)[0].isfinite().all()


def test_a_margin_asks_the_winner_for_more() -> None:
    found = bradley_terry(vector(1.0), vector(0.0), margin_N=vector(2.0))
    assert found.loss.item() == pytest.approx(math.log1p(math.exp(1)))
    lost = bradley_terry(vector(0.0), vector(1.0), vector(0.0), margin_N=vector(2.0))
    assert lost.loss.item() == found.loss.item()


def test_weights_and_denominators() -> None:
    left_N, right_N, weight_N = vector(1.0, -2.0, 0.5), vector(0.0, 1.0, 0.7), vector(1.0, 0.0, 3.0)
    single = [bradley_terry(left_N[i : i + 1], right_N[i : i + 1]).loss.item() for i in range(3)]
    weighted = bradley_terry(left_N, right_N, weight_N=weight_N)
    assert weighted.loss.item() == pytest.approx((single[0] + 3 * single[2]) / 4)
    parts = [
        bradley_terry(left_N[s], right_N[s], weight_N=weight_N[s], denominator=weight_N.sum()).loss.item()
        for s in (slice(0, 2), slice(2, 3))
    ]
    assert sum(parts) == pytest.approx(weighted.loss.item(), rel=1e-12)
    with pytest.raises(ValueError, match="add up to nothing"):
        bradley_terry(left_N, right_N, weight_N=torch.zeros(3))


def test_picking_the_best_of_four_by_hand_and_of_two_as_bradley_terry() -> None:
    scores_NK = torch.tensor([[1.0, 2.0, 0.0, -1.0], [0.0, 0.0, 3.0, 0.0]], dtype=torch.float64)
    found = pick_best(scores_NK, torch.tensor([0, 2]))
    first = math.log(sum(math.exp(s) for s in (1, 2, 0, -1))) - 1
    second = math.log(3 + math.exp(3)) - 3
    assert found.loss.item() == pytest.approx((first + second) / 2)
    assert found.accuracy.item() == 0.5
    two = pick_best(scores_NK[:, :2], torch.tensor([1, 0]))
    pair = bradley_terry(scores_NK[:, 0], scores_NK[:, 1], vector(0.0, 1.0))
    assert two.loss.item() == pytest.approx(pair.loss.item(), rel=1e-12)


def test_dpo_by_hand_and_its_gradient() -> None:
    chosen_N = vector(-2.0).requires_grad_()
    found = dpo(chosen_N, vector(-3.0), vector(-2.5), vector(-2.0), beta=0.4)
    h = 0.4 * (0.5 + 1.0)
    assert found.loss.item() == pytest.approx(math.log1p(math.exp(-h)))
    assert found.chosen_rewards_N.item() == pytest.approx(0.2)
    assert found.rejected_rewards_N.item() == pytest.approx(-0.4)
    assert found.accuracy.item() == 1.0
    (grad,) = torch.autograd.grad(found.loss, chosen_N)
    assert grad.item() == pytest.approx(-0.4 / (1 + math.exp(h)))  # −β σ(r̂_l − r̂_w)


def test_at_the_reference_every_pair_costs_log_two() -> None:
    logps = [vector(-1.0, -5.0), vector(-2.0, -3.0)]
    assert dpo(*logps, *logps, beta=0.1).loss.item() == pytest.approx(math.log(2))
    assert ipo(*logps, *logps, beta=0.1).loss.item() == pytest.approx(25.0)


def test_cdpo_reduces_to_dpo_and_stops_at_the_log_odds() -> None:
    logps = (vector(-1.0), vector(-2.0), vector(-1.5), vector(-1.0))
    assert cdpo(*logps, beta=0.3, label_smoothing=0.0).loss == dpo(*logps, beta=0.3).loss
    stop = math.log(0.9 / 0.1) / 0.3
    leaf_N = vector(stop).requires_grad_()
    found = cdpo(leaf_N, vector(0.0), vector(0.0), vector(0.0), beta=0.3, label_smoothing=0.1)
    assert torch.autograd.grad(found.loss, leaf_N)[0].item() == pytest.approx(0.0, abs=1e-15)
    with pytest.raises(ValueError, match=r"below 0\.5"):
        cdpo(*logps, beta=0.3, label_smoothing=0.5)


@given(p=belief, beta=st.floats(0.05, 2.0))
def test_ipo_is_stationary_at_its_goal(p: float, beta: float) -> None:
    leaf_N = vector((2 * p - 1) / (2 * beta)).requires_grad_()
    found = ipo(leaf_N, vector(0.0), vector(0.0), vector(0.0), beta=beta, p_chosen_N=vector(p))
    assert torch.autograd.grad(found.loss, leaf_N)[0].item() == pytest.approx(0.0, abs=1e-9)
    if p == 1.0:
        assert found.loss.item() == pytest.approx(0.0, abs=1e-15)


def test_beliefs_and_shapes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="probability between 0 and 1"):
        bradley_terry(vector(1.0), vector(0.0), vector(1.2))
    with pytest.raises(ValueError, match="probability between 0 and 1"):
        bradley_terry(vector(1.0), vector(0.0), vector(math.nan))
    with pytest.raises(ValueError, match=r"left_N \(2,\), right_N \(1,\)"):
        bradley_terry(vector(1.0, 2.0), vector(0.0))
    with pytest.raises(ValueError, match="same shape"):
        bradley_terry(vector(1.0, 2.0), vector(0.0, 1.0), margin_N=vector(1.0))
