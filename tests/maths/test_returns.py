from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from backflip.maths.returns import discounted_returns, gae, place_scores


def episode(seed: int, rows: int = 4, width: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths_B = torch.randint(1, width + 1, (rows,), generator=generator)
    mask_BT = (torch.arange(width) < lengths_B.unsqueeze(-1)).double()
    rewards_BT, values_BT = torch.randn(2, rows, width, generator=generator, dtype=torch.float64).unbind(0)
    return rewards_BT, values_BT, mask_BT


def slow_gae(rewards: list[float], values: list[float], gamma: float, lam: float) -> list[float]:
    """The definition itself: Σ_l (γλ)^l δ_{t+l}."""
    deltas = [r + gamma * v_next - v for r, v, v_next in zip(rewards, values, [*values[1:], 0.0], strict=True)]
    return [sum((gamma * lam) ** l * deltas[t + l] for l in range(len(deltas) - t)) for t in range(len(deltas))]


def test_gae_by_hand() -> None:
    rewards_BT = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    values_BT = torch.tensor([[0.5, 0.4, 0.8]], dtype=torch.float64)
    found = gae(rewards_BT, values_BT, torch.ones(1, 3), gamma=0.5, lam=0.5)
    # δ = (0 + 0.2 − 0.5, 0 + 0.4 − 0.4, 1 − 0.8) = (−0.3, 0, 0.2); Â = (−0.3 + ¼·0.05, 0 + ¼·0.2, 0.2)
    expected_BT = torch.tensor([[-0.2875, 0.05, 0.2]], dtype=torch.float64)
    torch.testing.assert_close(found.advantages_BT, expected_BT, rtol=0, atol=1e-15)
    torch.testing.assert_close(found.returns_BT, expected_BT + values_BT, rtol=0, atol=1e-15)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), gamma=st.floats(0.0, 1.0), lam=st.floats(0.0, 1.0))
def test_gae_is_its_definition_row_by_row(seed: int, gamma: float, lam: float) -> None:
    rewards_BT, values_BT, mask_BT = episode(seed)
    found_BT = gae(rewards_BT, values_BT, mask_BT, gamma=gamma, lam=lam).advantages_BT
    for row, (rewards_T, values_T, mask_T) in enumerate(zip(rewards_BT, values_BT, mask_BT, strict=True)):
        n = int(mask_T.sum())
        expected = slow_gae(rewards_T[:n].tolist(), values_T[:n].tolist(), gamma, lam)
        assert found_BT[row, :n].tolist() == pytest.approx(expected, abs=1e-12)
        assert found_BT[row, n:].eq(0).all()


def test_lambda_one_is_the_return_minus_the_value_and_lambda_zero_the_one_step_error() -> None:
    rewards_BT, values_BT, mask_BT = episode(3)
    returns_BT = discounted_returns(rewards_BT, mask_BT, gamma=0.9)
    full = gae(rewards_BT, values_BT, mask_BT, gamma=0.9, lam=1.0)
    torch.testing.assert_close(full.advantages_BT, (returns_BT - values_BT) * mask_BT, rtol=0, atol=1e-12)
    kept_BT = values_BT * mask_BT
    next_BT = torch.cat([kept_BT[:, 1:], torch.zeros(len(kept_BT), 1, dtype=torch.float64)], dim=1)
    one_step = gae(rewards_BT, values_BT, mask_BT, gamma=0.9, lam=0.0).advantages_BT
    torch.testing.assert_close(one_step, (rewards_BT + 0.9 * next_BT - values_BT) * mask_BT, rtol=0, atol=1e-12)


@pytest.mark.parametrize("garbage", [1e300, float("nan"), float("inf")])
def test_what_stands_under_the_mask_never_leaks(garbage: float) -> None:
    rewards_BT, values_BT, mask_BT = episode(5)
    clean = gae(rewards_BT, values_BT, mask_BT, gamma=0.99, lam=0.95)
    off_BT = ~mask_BT.bool()
    dirty = gae(rewards_BT.masked_fill(off_BT, garbage), values_BT.masked_fill(off_BT, garbage), mask_BT, gamma=0.99, lam=0.95)
    assert dirty.advantages_BT.equal(clean.advantages_BT)
    assert dirty.returns_BT.equal(clean.returns_BT)
    assert clean.returns_BT[off_BT].eq(0).all()


def test_masked_steps_inside_a_row_take_no_time() -> None:
    rewards_BT = torch.tensor([[1.0, 9.0, 2.0, 3.0]], dtype=torch.float64)
    values_BT = torch.tensor([[0.1, 9.0, 0.2, 0.3]], dtype=torch.float64)
    mask_BT = torch.tensor([[1, 0, 1, 1]])
    holed_BT = gae(rewards_BT, values_BT, mask_BT, gamma=0.9, lam=0.8).advantages_BT
    kept = [0, 2, 3]
    whole_BT = gae(rewards_BT[:, kept], values_BT[:, kept], torch.ones(1, 3), gamma=0.9, lam=0.8).advantages_BT
    torch.testing.assert_close(holed_BT[:, kept], whole_BT)
    assert holed_BT[0, 1].item() == 0.0


def test_discounted_returns_by_hand() -> None:
    rewards_BT = torch.tensor([[1.0, 2.0, 4.0], [3.0, 7.0, 7.0]], dtype=torch.float64)
    returns_BT = discounted_returns(rewards_BT, torch.tensor([[1, 1, 1], [1, 0, 0]]), gamma=0.5)
    assert returns_BT.tolist() == [[3.0, 4.0, 4.0], [3.0, 0.0, 0.0]]


def test_scores_stand_on_the_last_response_token() -> None:
    mask_BT = torch.tensor([[1, 1, 1], [0, 1, 0], [1, 0, 0]])
    placed_BT = place_scores(torch.tensor([5.0, -2.0, 3.0]), mask_BT)
    assert placed_BT.tolist() == [[0, 0, 5], [0, -2, 0], [3, 0, 0]]


def test_a_score_without_a_token_or_of_the_wrong_number_is_refused() -> None:
    with pytest.raises(ValueError, match="row 1 has no response token"):
        place_scores(torch.zeros(2), torch.tensor([[1, 1], [0, 0]]))
    with pytest.raises(ValueError, match="do not fit a mask"):
        place_scores(torch.zeros(3), torch.ones(2, 2))
    with pytest.raises(ValueError, match="same shape"):
        gae(torch.zeros(2, 3), torch.zeros(2, 2), torch.ones(2, 3), gamma=1.0, lam=1.0)
