"""Ties, rankings and ratings: gradients by hand, an independent count over all orders, and what reduces to what."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from backflip.maths.choices import best_of_k, davidson, plackett_luce, rao_kupper, rating_regression
from backflip.maths.preference import bradley_terry, pick_best

score = st.floats(-20.0, 20.0)


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def gradient(loss: Tensor, leaf: Tensor) -> list[float]:
    (found,) = torch.autograd.grad(loss, leaf)
    return found.tolist()  # type: ignore[no-any-return]


# ------------------------------------------------------------------------------------------------- pairs with ties


@pytest.mark.parametrize("gap", [-2.5, -0.3, 0.0, 1.0, 4.0])
@pytest.mark.parametrize("eps", [0.0, 0.1, 0.4])
def test_gradient_of_bradley_terry_with_blind_answers(gap: float, eps: float) -> None:
    leaf = vector(gap).requires_grad_()
    found = bradley_terry(leaf, vector(0.0), error_rate=eps)
    s = sigmoid(gap)
    p = (1 - eps) * s + eps / 2
    assert found.loss.item() == pytest.approx(-math.log(p), abs=1e-12)
    assert gradient(found.loss, leaf) == pytest.approx([-(1 - eps) * s * (1 - s) / p], abs=1e-12)


def test_a_blind_answer_pulls_less_the_less_it_fits() -> None:
    pulls = []
    for gap in (-2.0, -4.0, -8.0):
        leaf = vector(gap).requires_grad_()
        pulls.append(abs(gradient(bradley_terry(leaf, vector(0.0), error_rate=0.2).loss, leaf)[0]))
    assert pulls[0] > pulls[1] > pulls[2]
    plain = vector(-8.0).requires_grad_()
    assert abs(gradient(bradley_terry(plain, vector(0.0)).loss, plain)[0]) > 0.99
    with pytest.raises(ValueError, match="error_rate must be at least 0 and below 1"):
        bradley_terry(plain, vector(0.0), error_rate=1.0)


@pytest.mark.parametrize("gap", [-3.0, -0.5, 0.0, 0.7, 2.0])
@pytest.mark.parametrize("width", [0.2, 1.0])
def test_gradients_of_rao_kupper_by_hand(gap: float, width: float) -> None:
    # ∂/∂d log σ(d−η) = 1 − σ(d−η);  ∂/∂d log σ(−d−η) = −(1 − σ(−d−η));  a tie has both.
    left, right = sigmoid(gap - width), sigmoid(-gap - width)
    tie = (math.exp(2 * width) - 1) * left * right
    assert left + tie + right == pytest.approx(1, abs=1e-12)
    table = {1.0: (left, -(1 - left)), 0.0: (right, 1 - right), 0.5: (tie, (1 - right) - (1 - left))}
    for p, (chance, slope) in table.items():
        leaf = vector(gap).requires_grad_()
        found = rao_kupper(leaf, vector(0.0), vector(p), tie_width=width)
        assert found.loss.item() == pytest.approx(-math.log(chance), abs=1e-9)
        assert gradient(found.loss, leaf) == pytest.approx([slope], abs=1e-9)


@pytest.mark.parametrize("gap", [-3.0, -0.5, 0.0, 0.7, 2.0])
@pytest.mark.parametrize("width", [0.3, 2.0])
def test_gradients_of_davidson_by_hand(gap: float, width: float) -> None:
    a, b, t = math.exp(gap / 2), math.exp(-gap / 2), width
    left, right, tie = (x / (a + b + t) for x in (a, b, t))
    mean = (left - right) / 2  # the expected ∂logit/∂d
    table = {1.0: (left, mean - 0.5), 0.0: (right, mean + 0.5), 0.5: (tie, mean)}
    for p, (chance, slope) in table.items():
        leaf = vector(gap).requires_grad_()
        found = davidson(leaf, vector(0.0), vector(p), tie_width=width)
        assert found.loss.item() == pytest.approx(-math.log(chance), abs=1e-9)
        assert gradient(found.loss, leaf) == pytest.approx([slope], abs=1e-9)


@pytest.mark.parametrize("model", [rao_kupper, davidson])
@given(left=score, right=score, p=st.sampled_from([0.0, 0.3, 0.5, 1.0]), eps=st.sampled_from([0.0, 0.15]))
def test_ties_swap_and_sum_to_one(model: object, left: float, right: float, p: float, eps: float) -> None:
    def loss(a: float, b: float, q: float) -> float:
        return model(vector(a), vector(b), vector(q), tie_width=0.4, error_rate=eps).loss.item()  # type: ignore[operator, no-any-return]

    assert loss(left, right, p) == pytest.approx(loss(right, left, 1 - p), rel=1e-9, abs=1e-12)
    assert loss(left + 2, right + 2, p) == pytest.approx(loss(left, right, p), rel=1e-9, abs=1e-9)
    assert sum(math.exp(-loss(left, right, q)) for q in (0.0, 0.5, 1.0)) == pytest.approx(1, abs=1e-9)


def test_of_equal_texts_so_many_are_ties() -> None:
    tie = vector(0.5)
    assert math.exp(-rao_kupper(vector(1.0), vector(1.0), tie, tie_width=0.8).loss.item()) == pytest.approx(math.tanh(0.4))
    assert math.exp(-davidson(vector(1.0), vector(1.0), tie, tie_width=0.8).loss.item()) == pytest.approx(0.8 / 2.8)
    for width in (0.0, -1.0, math.inf):
        with pytest.raises(ValueError, match="a tie width is above 0 and finite"):
            davidson(vector(1.0), vector(0.0), tie_width=width)


def test_a_narrow_tie_leaves_bradley_terry() -> None:
    left_N, right_N, p_N = vector(1.0, -2.0), vector(0.5, 1.0), vector(1.0, 0.0)
    plain = bradley_terry(left_N, right_N, p_N, error_rate=0.0).loss.item()
    assert rao_kupper(left_N, right_N, p_N, tie_width=1e-9).loss.item() == pytest.approx(plain, abs=1e-8)
    assert davidson(left_N, right_N, p_N, tie_width=1e-12).loss.item() == pytest.approx(plain, abs=1e-8)


@pytest.mark.parametrize("model", [rao_kupper, davidson])
def test_ties_stay_finite_weigh_and_count(model: object) -> None:
    leaf = torch.tensor([200.0, -200.0, 1.0], requires_grad=True)
    found = model(leaf, torch.zeros(3), torch.tensor([0.0, 1.0, 0.5]), tie_width=0.5)  # type: ignore[operator]
    assert found.loss.isfinite()
    assert all(math.isfinite(g) for g in gradient(found.loss, leaf))
    assert (found.accuracy.item(), found.decided.item()) == (0.0, 2)
    weighted = model(vector(1.0, 5.0), vector(0.0, 0.0), tie_width=0.5, weight_N=vector(2.0, 0.0), denominator=4.0)  # type: ignore[operator]
    alone = model(vector(1.0), vector(0.0), tie_width=0.5)  # type: ignore[operator]
    assert weighted.loss.item() == pytest.approx(alone.loss.item() / 2)


# ------------------------------------------------------------------------------------------------------- rankings


def order_nll(values: list[float], order: tuple[int, ...]) -> float:
    """−log-probability of one order, written out choice by choice."""
    rest, total = list(order), 0.0
    for first in order:
        total += math.log(sum(math.exp(values[i]) for i in rest)) - values[first]
        rest.remove(first)
    return total


@given(values=st.lists(st.floats(-5, 5), min_size=2, max_size=6), seed=st.randoms(use_true_random=False))
def test_plackett_luce_against_counting_choice_by_choice(values: list[float], seed: object) -> None:
    order = list(range(len(values)))
    seed.shuffle(order)  # type: ignore[attr-defined]
    found = plackett_luce(vector(*values), [[[i] for i in order]])
    assert found.loss.item() == pytest.approx(order_nll(values, tuple(order)) / (len(values) - 1), abs=1e-9)
    every = [math.exp(-order_nll(values, o)) for o in itertools.permutations(range(len(values)))]
    assert sum(every) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("groups", [[[0, 1], [2]], [[2], [0, 1, 3]], [[3], [1, 0], [2]], [[0, 1, 2, 3]]])
def test_equals_are_averaged_over_all_their_orders(groups: list[list[int]]) -> None:
    values = [0.3, -1.2, 2.0, 0.7]
    k = sum(map(len, groups))
    orders = [tuple(itertools.chain(*each)) for each in itertools.product(*(itertools.permutations(g) for g in groups))]
    expected = sum(order_nll(values, order) for order in orders) / len(orders) / (k - 1)
    assert plackett_luce(vector(*values), [groups]).loss.item() == pytest.approx(expected, abs=1e-12)


def test_gradient_of_a_ranking_of_three_by_hand() -> None:
    # 2 above 0 above 1: ½ Σ over two choices of softmax(rest) − [chosen].
    leaf = vector(0.4, -0.2, 1.1).requires_grad_()
    values = leaf.tolist()
    z = [math.exp(v) for v in values]
    all_three, two = sum(z), z[0] + z[1]
    table = [(z[0] / all_three + z[0] / two - 1) / 2, (z[1] / all_three + z[1] / two) / 2, (z[2] / all_three - 1) / 2]
    assert gradient(plackett_luce(leaf, [[[2], [0], [1]]]).loss, leaf) == pytest.approx(table, abs=1e-12)
    first = [z[0] / all_three, z[1] / all_three, z[2] / all_three - 1]
    assert gradient(best_of_k(leaf, [[[2], [0, 1]]]).loss, leaf) == pytest.approx(first, abs=1e-12)


@given(a=score, b=score)
def test_a_ranking_of_two_is_a_comparison(a: float, b: float) -> None:
    pair = bradley_terry(vector(a), vector(b)).loss.item()
    tie = bradley_terry(vector(a), vector(b), vector(0.5)).loss.item()
    for loss in (plackett_luce, best_of_k):
        assert loss(vector(a, b), [[[0], [1]]]).loss.item() == pytest.approx(pair, rel=1e-9, abs=1e-12)
        assert loss(vector(a, b), [[[0, 1]]]).loss.item() == pytest.approx(tie, rel=1e-9, abs=1e-9)
        assert loss(vector(a, b), [[[0, 1]]], ties="drop").loss.item() == pytest.approx(0, abs=1e-12)


def test_dropping_ties_compares_with_what_is_below_alone() -> None:
    values = vector(0.4, -0.2, 1.1)
    pairs = [bradley_terry(values[i : i + 1], values[1:2]).loss.item() for i in (0, 2)]
    for loss in (plackett_luce, best_of_k):
        assert loss(values, [[[0, 2], [1]]], ties="drop").loss.item() == pytest.approx(sum(pairs) / 2, abs=1e-12)


def test_the_best_of_k_is_picked_as_ziegler_did() -> None:
    scores_NK = torch.tensor([[1.0, 2.0, 0.0, -1.0], [0.0, 0.0, 3.0, 0.0]], dtype=torch.float64)
    there = pick_best(scores_NK, torch.tensor([0, 2])).loss.item()
    rankings = [[[0], [1, 2, 3]], [[6], [4, 5, 7]]]
    assert best_of_k(scores_NK.flatten(), rankings).loss.item() == pytest.approx(there, abs=1e-12)


def test_rankings_weigh_and_their_pairs_are_counted() -> None:
    values = vector(3.0, 1.0, 2.0, 0.0)
    found = plackett_luce(values, [[[0], [1], [2]], [[0, 1], [3]]], weight_N=vector(1.0, 3.0))
    each = [plackett_luce(values, [r]).loss.item() for r in ([[0], [1], [2]], [[0, 1], [3]])]
    assert found.loss.item() == pytest.approx((each[0] + 3 * each[1]) / 4)
    assert found.decided.item() == 5
    assert found.accuracy.item() == pytest.approx(4 / 5)
    assert plackett_luce(values, [[[0, 1, 2, 3]]]).decided.item() == 0


@pytest.mark.parametrize("ranking", [[[0]], [[0], [0]], [[0, 1], [1]], []])
def test_what_is_no_ranking(ranking: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="a ranking places two or more completions, each once"):
        plackett_luce(vector(1.0, 2.0), [ranking])


@given(st.lists(score, min_size=3, max_size=5), st.floats(-5, 5))
def test_a_common_shift_changes_nothing(values: list[float], shift: float) -> None:
    ranking = [[[0], list(range(1, len(values)))]]
    for loss in (plackett_luce, best_of_k):
        there, back = (loss(vector(*(v + s for v in values)), ranking).loss.item() for s in (0.0, shift))
        assert back == pytest.approx(there, rel=1e-9, abs=1e-9)


# -------------------------------------------------------------------------------------------------------- ratings


def test_regression_by_hand() -> None:
    leaf = vector(1.0, -2.0).requires_grad_()
    loss = rating_regression(leaf, vector(0.5, 1.0), weight_N=vector(1.0, 3.0))
    assert loss.item() == pytest.approx((0.25 + 3 * 9) / 4)
    assert gradient(loss, leaf) == pytest.approx([2 * 0.5 / 4, -2 * 3 * 3 / 4], abs=1e-12)
    reference = torch.nn.functional.mse_loss(leaf, vector(0.5, 1.0))
    assert rating_regression(leaf, vector(0.5, 1.0)).item() == pytest.approx(reference.item(), abs=1e-12)
    with pytest.raises(ValueError, match="same shape"):
        rating_regression(leaf, vector(1.0))
