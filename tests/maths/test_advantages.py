from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import pad

from backflip.maths.advantages import (
    group_centered,
    group_normalized,
    group_process,
    per_token,
    reinforce_plus_plus,
    reinforce_plus_plus_baseline,
    remax,
    rloo,
)

GROUPED: list[Callable[[Tensor, Tensor], Tensor]] = [group_normalized, group_centered, rloo]
SCORES_B = torch.tensor([1.0, 10.0, 2.0, 30.0, 6.0], dtype=torch.float64)
GROUP_B = torch.tensor([7, -1, 7, -1, 7])


def test_group_advantages_by_hand() -> None:
    assert group_centered(SCORES_B, GROUP_B).tolist() == pytest.approx([-2, -10, -1, 10, 3])
    assert rloo(SCORES_B, GROUP_B).tolist() == pytest.approx([1 - 4, -20, 2 - 3.5, 20, 6 - 1.5])
    std, other = 7.0**0.5, 200.0**0.5
    expected = [-2 / std, -10 / other, -1 / std, 10 / other, 3 / std]
    assert group_normalized(SCORES_B, GROUP_B).tolist() == pytest.approx(expected, rel=1e-6)
    first = group_normalized(SCORES_B, GROUP_B, eps=1.0)[0].item()
    assert first == pytest.approx(-2 / (std + 1.0), rel=1e-12)


@pytest.mark.parametrize("function", GROUPED)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), shift=st.floats(-100, 100))
def test_order_of_rows_and_a_shift_per_prompt_change_nothing(
    function: Callable[[Tensor, Tensor], Tensor], seed: int, shift: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores_B = torch.randn(12, generator=generator, dtype=torch.float64)
    group_B = torch.arange(4).repeat(3)
    found_B = function(scores_B, group_B)
    order_B = torch.randperm(12, generator=generator)
    torch.testing.assert_close(function(scores_B[order_B], group_B[order_B]), found_B[order_B], rtol=1e-9, atol=1e-9)
    moved_B = function(scores_B + shift * group_B, group_B)
    torch.testing.assert_close(moved_B, found_B, rtol=1e-6, atol=1e-6)
    sums = [found_B[group_B == g].sum().item() for g in range(4)]
    assert sums == pytest.approx([0.0] * 4, abs=1e-9)


def test_only_the_normalised_one_forgets_the_scale() -> None:
    torch.testing.assert_close(group_normalized(100 * SCORES_B, GROUP_B), group_normalized(SCORES_B, GROUP_B), rtol=1e-5, atol=0)
    torch.testing.assert_close(rloo(100 * SCORES_B, GROUP_B), 100 * rloo(SCORES_B, GROUP_B))


def test_leave_one_out_is_the_centred_one_rescaled() -> None:
    torch.testing.assert_close(rloo(SCORES_B, GROUP_B)[GROUP_B == 7], 1.5 * group_centered(SCORES_B, GROUP_B)[GROUP_B == 7])


@pytest.mark.parametrize("function", GROUPED)
def test_a_dead_group_gets_nothing_in_single_precision_too(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    found_B = function(torch.full((7,), 0.1), torch.zeros(7, dtype=torch.long))
    assert found_B.dtype == torch.float32
    assert found_B.abs().max().item() < 1e-9


@pytest.mark.parametrize("function", GROUPED)
def test_a_prompt_with_one_sample_is_refused(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    with pytest.raises(ValueError, match="at least two samples per prompt, and group 5 has one"):
        function(torch.zeros(3), torch.tensor([4, 4, 5]))
    with pytest.raises(ValueError, match="two equal rows"):
        function(torch.zeros(3), torch.tensor([4, 4]))


def test_steps_by_hand() -> None:
    # Group 0: rewards of steps 1, 0 | 2 and group 1: 3 | 1, 5 (its first token and its third end a step), 0 left at the end.
    rewards_BT = torch.tensor([[0.0, 1, 0, 0], [0, 0, 2, 9], [3, 9, 9, 9], [1, 0, 5, 0]], dtype=torch.float64)
    steps_BT = torch.tensor([[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 1, 0]])
    mask_BT = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]])
    found_BT = group_process(rewards_BT, steps_BT, torch.tensor([0, 0, 1, 1]), mask_BT, eps=0.0)
    # Group 0: mean 1, std 1, so 0, −1 | 1. Group 1: mean 9/4, squares of the rest 9/16, 25/16, 121/16 and 81/16, variance 59/12.
    std = (59 / 12) ** 0.5
    last, before, first = -9 / 4 / std, 11 / 4 / std, -5 / 4 / std
    expected_BT = [
        [-1, -1, -1, -1],
        [1, 1, 1, 0],
        [3 / 4 / std, 0, 0, 0],
        [first + before + last, before + last, before + last, last],
    ]
    torch.testing.assert_close(found_BT, torch.tensor(expected_BT, dtype=torch.float64), rtol=0, atol=1e-12)


def laid_out(seed: int, rows: int = 6, width: int = 7) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rewards, steps, two groups and a mask with gaps, as an environment's words leave them; every row has a token."""
    generator = torch.Generator().manual_seed(seed)
    rewards_BT = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    steps_BT, mask_BT = (torch.rand(2, rows, width, generator=generator) < 0.6).long().unbind(0)
    mask_BT[:, 2] = 1
    return rewards_BT, steps_BT, torch.arange(rows) % 2, mask_BT


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_steps_are_their_definition_row_by_row(seed: int) -> None:
    rewards_BT, steps_BT, group_B, mask_BT = laid_out(seed)
    found_BT = group_process(rewards_BT, steps_BT, group_B, mask_BT)
    rows: list[list[tuple[int, float]]] = []  # of each row the steps: their last column and their reward
    for b in range(len(rewards_BT)):
        columns, open_reward = [t for t in range(7) if mask_BT[b, t]], 0.0
        rows.append([])
        for t in columns:
            open_reward += float(rewards_BT[b, t])
            if steps_BT[b, t] or t == columns[-1]:
                rows[b].append((t, open_reward))
                open_reward = 0.0
    for b, steps in enumerate(rows):
        everyone = torch.tensor([r for other, g in zip(rows, group_B, strict=True) if g == group_B[b] for _, r in other])
        mean, std = float(everyone.double().mean()), float(everyone.double().std())
        for t in range(7):
            expected = sum((r - mean) / (std + 1e-6) for end, r in steps if end >= t) if mask_BT[b, t] else 0.0
            assert found_BT[b, t].item() == pytest.approx(expected, rel=1e-5, abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_one_step_at_the_end_is_the_outcome_alone(seed: int) -> None:
    rewards_BT, steps_BT, group_B, mask_BT = laid_out(seed)
    scores_B = (rewards_BT * mask_BT).sum(1)
    expected_BT = per_token(group_normalized(scores_B, group_B), mask_BT)
    found_BT = group_process(rewards_BT, torch.zeros_like(steps_BT), group_B, mask_BT)
    torch.testing.assert_close(found_BT, expected_BT, rtol=1e-9, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), left=st.integers(0, 3), right=st.integers(0, 3))
def test_padding_and_order_change_no_steps(seed: int, left: int, right: int) -> None:
    rewards_BT, steps_BT, group_B, mask_BT = laid_out(seed)
    found_BT = group_process(rewards_BT, steps_BT, group_B, mask_BT)
    wide = [pad(x, (left, right), value=v) for x, v in ((rewards_BT, float("nan")), (steps_BT, 1), (mask_BT, 0))]
    torch.testing.assert_close(
        group_process(wide[0], wide[1], group_B, wide[2]), pad(found_BT, (left, right)), rtol=0, atol=1e-12
    )
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    moved_BT = group_process(rewards_BT[order], steps_BT[order], group_B[order], mask_BT[order])
    torch.testing.assert_close(moved_BT, found_BT[order], rtol=1e-9, atol=1e-9)


def test_steps_without_another_sample_or_of_another_shape_are_refused() -> None:
    ones = torch.ones(3, 2)
    with pytest.raises(ValueError, match="advantages of steps need at least two samples per prompt, and group 5 has one"):
        group_process(ones, ones, torch.tensor([4, 4, 5]), ones)  # its two steps are no other sample
    with pytest.raises(ValueError, match="steps_BT"):
        group_process(ones, ones[:2], torch.tensor([4, 4, 4]), ones)


def test_steps_that_are_all_worth_the_same_teach_nothing() -> None:
    rewards_BT = torch.full((4, 3), 0.1)
    found_BT = group_process(rewards_BT, torch.ones(4, 3), torch.zeros(4, dtype=torch.long), torch.ones(4, 3))
    assert found_BT.abs().max().item() < 1e-6


def test_reinforce_plus_plus_whitens_returns_over_the_batch() -> None:
    rewards_BT = torch.tensor([[0.0, 4.0], [2.0, 50.0]], dtype=torch.float64)
    mask_BT = torch.tensor([[1, 1], [1, 0]])
    returns = torch.tensor([2.0, 4.0, 2.0], dtype=torch.float64)
    white = (returns - returns.mean()) / returns.std()
    found_BT = reinforce_plus_plus(rewards_BT, mask_BT, gamma=0.5)
    assert found_BT.flatten().tolist() == pytest.approx([*white.tolist(), 0.0], abs=1e-6)


def test_reinforce_plus_plus_baseline_whitens_centred_scores_over_tokens() -> None:
    scores_B = torch.tensor([1.0, 3.0], dtype=torch.float64)
    mask_BT = torch.tensor([[1, 1, 1], [1, 0, 0]])
    tokens = torch.tensor([-1.0, -1.0, -1.0, 1.0], dtype=torch.float64)
    white = (tokens - tokens.mean()) / tokens.std()
    found_BT = reinforce_plus_plus_baseline(scores_B, torch.zeros(2, dtype=torch.long), mask_BT)
    expected = [*white.tolist(), 0.0, 0.0]
    assert found_BT.flatten().tolist() == pytest.approx(expected, abs=1e-6)


def test_remax_subtracts_the_greedy_reward_from_the_return_to_go() -> None:
    rewards_BT = torch.tensor([[1.0, 0.0, 2.0], [5.0, 9.0, 9.0]], dtype=torch.float64)
    mask_BT = torch.tensor([[1, 1, 1], [1, 0, 0]])
    found_BT = remax(rewards_BT, torch.tensor([2.0, 6.0], dtype=torch.float64), mask_BT)
    assert found_BT.tolist() == [[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]


def test_per_token_spreads_and_masks() -> None:
    mask_BT = torch.tensor([[1, 1], [1, 0]])
    assert per_token(torch.tensor([2.0, -3.0]), mask_BT).tolist() == [[2.0, 2.0], [-3.0, 0.0]]
