from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from backflip.maths.tensors import (
    Averaging,
    aggregate,
    denominator,
    masked_mean,
    masked_sum,
    masked_var,
    token_entropy,
    token_logps,
    whiten,
)

MODES: tuple[Averaging, ...] = Averaging.__args__  # type: ignore[attr-defined]


def batch(seed: int = 0, rows: int = 6, width: int = 7) -> tuple[Tensor, Tensor]:
    """Random float64 losses and a right-padded mask; the last row may be empty."""
    generator = torch.Generator().manual_seed(seed)
    lengths_B = torch.randint(1, width + 1, (rows,), generator=generator)
    mask_BT = (torch.arange(width) < lengths_B.unsqueeze(-1)).double()
    return torch.randn(rows, width, generator=generator, dtype=torch.float64), mask_BT


def test_masked_statistics_by_hand() -> None:
    x_BT = torch.tensor([[1.0, 2.0, 1e30], [6.0, float("nan"), 3.0]], dtype=torch.float64)
    mask_BT = torch.tensor([[1, 1, 0], [1, 0, 1]])
    assert masked_sum(x_BT, mask_BT).item() == 12.0
    assert masked_mean(x_BT, mask_BT).item() == pytest.approx(3.0, rel=1e-8)
    assert masked_mean(x_BT, mask_BT, denominator=6).item() == 2.0
    assert masked_var(x_BT, mask_BT).item() == pytest.approx(14 / 4, rel=1e-7)
    assert masked_var(x_BT, mask_BT, unbiased=True).item() == pytest.approx(14 / 3, rel=1e-7)
    assert masked_mean(x_BT, torch.zeros(2, 3)).item() == 0.0


def test_variance_is_that_of_torch_on_what_is_kept() -> None:
    x_BT, mask_BT = batch()
    kept = x_BT[mask_BT.bool()]
    for unbiased in (False, True):
        torch.testing.assert_close(masked_var(x_BT, mask_BT, unbiased=unbiased), kept.var(unbiased=unbiased))


@pytest.mark.parametrize("shift_mean", [True, False])
def test_whitening_sets_scale_and_keeps_or_removes_the_mean(shift_mean: bool) -> None:
    x_BT, mask_BT = batch()
    white_BT = whiten(3.0 + 5.0 * x_BT, mask_BT, shift_mean=shift_mean)
    kept = white_BT[mask_BT.bool()]
    assert kept.var(unbiased=False).item() == pytest.approx(1.0, abs=1e-6)
    mean = 0.0 if shift_mean else (3.0 + 5.0 * x_BT)[mask_BT.bool()].mean().item()
    assert kept.mean().item() == pytest.approx(mean, abs=1e-6)
    assert white_BT[~mask_BT.bool()].eq(0).all()


def test_the_epsilon_of_whitening_stands_inside_the_root() -> None:
    x_BT, mask_BT = torch.tensor([[0.0, 2e-4]], dtype=torch.float64), torch.ones(1, 2)
    assert whiten(x_BT, mask_BT)[0, 1].item() == pytest.approx(1e-4 / (2e-8) ** 0.5, rel=1e-6)


@pytest.mark.parametrize("ones", [0, 1])
def test_whitening_fewer_than_two_numbers_is_refused(ones: int) -> None:
    with pytest.raises(ValueError, match=f"at least two unmasked entries.*there are {ones}"):
        whiten(torch.zeros(1, 3), torch.tensor([[1.0] * ones + [0.0] * (3 - ones)]))


def test_every_averaging_by_hand() -> None:
    loss_BT = torch.tensor([[1.0, 2.0, 3.0], [8.0, 99.0, 99.0]], dtype=torch.float64)
    mask_BT = torch.tensor([[1, 1, 1], [1, 0, 0]])
    expected = {
        "token-mean": 14 / 4,
        "seq-mean-token-mean": (2 + 8) / 2,
        "seq-mean-token-sum": (6 + 8) / 2,
        "seq-mean-token-sum-norm": (6 + 8) / 2 / 5,
    }
    for mode in MODES:
        total = denominator(mask_BT, mode, norm_length=5)
        assert aggregate(loss_BT, mask_BT, mode, denominator=total).item() == pytest.approx(expected[mode], rel=1e-7)


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), cuts=st.sets(st.integers(1, 5)), padding=st.integers(0, 4))
def test_any_split_and_any_padding_give_the_same_loss_and_gradient(
    mode: Averaging, seed: int, cuts: set[int], padding: int
) -> None:
    x_BT, mask_BT = batch(seed)
    whole_BT = x_BT.clone().requires_grad_()
    whole = aggregate(whole_BT.exp(), mask_BT, mode, denominator=denominator(mask_BT, mode, norm_length=9))
    whole.backward()

    parts_BT = x_BT.clone().requires_grad_()
    total = denominator(mask_BT, mode, norm_length=9)
    bounds = [0, *sorted(cuts), len(x_BT)]
    loss = torch.zeros((), dtype=torch.float64)
    for start, stop in itertools.pairwise(bounds):
        wide_BT = torch.nn.functional.pad(parts_BT[start:stop].exp(), (0, padding), value=1e300)
        wide_mask_BT = torch.nn.functional.pad(mask_BT[start:stop], (0, padding))
        part = aggregate(wide_BT, wide_mask_BT, mode, denominator=total)
        part.backward()
        loss = loss + part.detach()
    torch.testing.assert_close(loss, whole.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(parts_BT.grad, whole_BT.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_rows_without_tokens_change_nothing(mode: Averaging) -> None:
    x_BT, mask_BT = batch()
    more_BT = torch.cat([x_BT, torch.full((2, x_BT.shape[1]), float("nan"), dtype=torch.float64)])
    more_mask_BT = torch.cat([mask_BT, torch.zeros(2, x_BT.shape[1], dtype=torch.float64)])
    total, more_total = (denominator(m, mode, norm_length=7) for m in (mask_BT, more_mask_BT))
    assert total.item() == more_total.item()
    assert aggregate(x_BT, mask_BT, mode, denominator=total) == aggregate(more_BT, more_mask_BT, mode, denominator=more_total)
    empty = torch.zeros_like(mask_BT)
    assert aggregate(x_BT, empty, mode, denominator=denominator(empty, mode, norm_length=7)).item() == 0.0


def test_averaging_refuses_what_it_cannot_do() -> None:
    x_BT, mask_BT = batch()
    with pytest.raises(ValueError, match="give norm_length"):
        aggregate(x_BT, mask_BT, "seq-mean-token-sum-norm")
    with pytest.raises(ValueError, match="unknown averaging 'mean'"):
        denominator(mask_BT, "mean")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"loss_BT \(6, 6\), mask_BT \(6, 7\)"):
        aggregate(x_BT[:, 1:], mask_BT, "token-mean")


def test_token_logps_against_log_softmax_with_temperature() -> None:
    generator = torch.Generator().manual_seed(1)
    logits_BTV = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64)
    tokens_BT = torch.randint(5, (2, 3), generator=generator)
    for temperature in (1.0, 0.7):
        expected_BT = -torch.nn.functional.cross_entropy(
            (logits_BTV / temperature).flatten(0, 1), tokens_BT.flatten(), reduction="none"
        ).view(2, 3)
        torch.testing.assert_close(token_logps(logits_BTV, tokens_BT, temperature=temperature), expected_BT)
    shifted_BT = token_logps(logits_BTV + 1000.0, tokens_BT)
    torch.testing.assert_close(shifted_BT, token_logps(logits_BTV, tokens_BT), rtol=0, atol=1e-11)
    assert token_logps(logits_BTV.bfloat16(), tokens_BT).dtype == torch.float32


def test_entropy_of_known_distributions() -> None:
    uniform_V = torch.zeros(1, 1, 8, dtype=torch.float64)
    assert token_entropy(uniform_V).item() == pytest.approx(torch.log(torch.tensor(8.0)).item())
    coin_V = torch.tensor([[[0.0, 0.0, -torch.inf]]], dtype=torch.float64, requires_grad=True)
    entropy = token_entropy(coin_V)
    assert entropy.item() == pytest.approx(0.6931471805599453)
    entropy.sum().backward()
    assert coin_V.grad is not None
    assert coin_V.grad.isfinite().all()
    logits_BTV = torch.randn(2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    reference_BT = torch.distributions.Categorical(logits=logits_BTV / 0.5).entropy()
    torch.testing.assert_close(token_entropy(logits_BTV, temperature=0.5), reference_BT)


def test_logits_and_temperatures_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="temperature must be above 0"):
        token_entropy(torch.zeros(1, 1, 2), temperature=0.0)
    with pytest.raises(ValueError, match="do not fit tokens"):
        token_logps(torch.zeros(1, 3, 2), torch.zeros(1, 2, dtype=torch.long))
