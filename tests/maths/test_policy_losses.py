from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from backflip.maths.policy_losses import PolicyLoss, cispo, gspo, ppo_clip, reinforce, sapo, value_loss
from backflip.maths.tensors import Averaging, denominator

MODES: tuple[Averaging, ...] = Averaging.__args__  # type: ignore[attr-defined]
RATIO_LOSSES: dict[str, Callable[..., PolicyLoss]] = {
    "ppo_clip": ppo_clip,
    "dual": partial(ppo_clip, dual_clip=1.2),
    "cispo": cispo,
    "gspo": partial(gspo, clip_low=0.1, clip_high=0.2),
    "sapo": sapo,
}


def batch(seed: int = 0, rows: int = 5, width: int = 6) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """log π, log π_old, advantages and a mask whose rows all have a token, in float64."""
    generator = torch.Generator().manual_seed(seed)
    old_BT, move_BT, advantages_BT = torch.randn(3, rows, width, generator=generator, dtype=torch.float64).unbind(0)
    lengths_B = torch.randint(1, width + 1, (rows,), generator=generator)
    mask_BT = (torch.arange(width) < lengths_B.unsqueeze(-1)).double()
    return old_BT + 0.5 * move_BT, old_BT, advantages_BT, mask_BT


def one(ratio: float, advantage: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A batch of one token with this ratio and this advantage."""
    logp_BT = torch.tensor([[math.log(ratio) - 1.0]], dtype=torch.float64, requires_grad=True)
    old_BT, advantages_BT = (torch.tensor([[x]], dtype=torch.float64) for x in (-1.0, advantage))
    return logp_BT, old_BT, advantages_BT, torch.ones(1, 1)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "grad", "clipped"),
    [
        (1.1, 2.0, -2.2, -2.2, 0.0),  # inside the clip: −ρÂ, and dρ/dlogπ = ρ
        (1.5, 2.0, -2.4, 0.0, 1.0),  # already better by more than ε: flat
        (0.5, 2.0, -1.0, -1.0, 0.0),  # moved the wrong way: never clipped
        (0.5, -2.0, 1.6, 0.0, 1.0),
        (1.5, -2.0, 3.0, 3.0, 0.0),
        (1.0, 2.0, -2.0, -2.0, 0.0),
    ],
)
def test_ppo_by_hand(ratio: float, advantage: float, loss: float, grad: float, clipped: float) -> None:
    logp_BT, *rest = one(ratio, advantage)
    found = ppo_clip(logp_BT, *rest)
    found.loss.backward()
    assert logp_BT.grad is not None
    assert found.loss.item() == pytest.approx(loss, rel=1e-12)
    assert logp_BT.grad.item() == pytest.approx(grad, rel=1e-12)
    assert found.clip_fraction.item() == pytest.approx(clipped, rel=1e-7)
    assert found.ratio_max.item() == pytest.approx(ratio)
    assert found.approx_kl.item() == pytest.approx(ratio - 1 - math.log(ratio), rel=1e-7, abs=1e-15)
    assert found.approx_kl_k1.item() == pytest.approx(-math.log(ratio), rel=1e-7, abs=1e-15)


def test_unequal_clips_and_the_dual_clip_by_hand() -> None:
    assert ppo_clip(*one(1.25, 2.0), clip_high=0.28).loss.item() == pytest.approx(-2.5)
    assert ppo_clip(*one(1.5, 2.0), clip_high=0.28).loss.item() == pytest.approx(-2.56)
    assert ppo_clip(*one(0.5, -2.0), clip_low=0.4).loss.item() == pytest.approx(1.2)
    assert ppo_clip(*one(50.0, -2.0), dual_clip=3.0).loss.item() == pytest.approx(6.0)
    assert ppo_clip(*one(2.0, -2.0), dual_clip=3.0).loss.item() == pytest.approx(4.0)
    with pytest.raises(ValueError, match="dual_clip must be above 1"):
        ppo_clip(*one(1.0, 1.0), dual_clip=0.5)


@pytest.mark.parametrize(("ratio", "weight"), [(1.1, 1.1), (2.0, 1.28), (0.1, 0.8)])
def test_cispo_clips_the_weight_and_keeps_the_gradient(ratio: float, weight: float) -> None:
    logp_BT, *rest = one(ratio, -2.0)
    found = cispo(logp_BT, *rest)
    found.loss.backward()
    assert logp_BT.grad is not None
    assert logp_BT.grad.item() == pytest.approx(2.0 * weight)
    assert found.loss.item() == pytest.approx(2.0 * weight * logp_BT.item())
    assert found.clip_fraction.item() == pytest.approx(float(weight != ratio), rel=1e-7)


def test_gspo_uses_the_geometric_mean_of_the_ratios() -> None:
    logp_BT = torch.tensor([[0.3, -0.1, 5.0]], dtype=torch.float64, requires_grad=True)
    old_BT, mask_BT = torch.zeros(1, 3, dtype=torch.float64), torch.tensor([[1, 1, 0]])
    found = gspo(logp_BT, old_BT, torch.full_like(old_BT, 2.0), mask_BT, clip_low=0.2, clip_high=0.2)
    found.loss.backward()
    assert logp_BT.grad is not None
    s = math.exp(0.1)
    assert found.loss.item() == pytest.approx(-2 * s, rel=1e-7)
    assert logp_BT.grad.tolist()[0] == pytest.approx([-s, -s, 0.0], rel=1e-7)  # −Âs/|o| for each of two tokens
    assert gspo(logp_BT, old_BT, torch.full_like(old_BT, 2.0), mask_BT).clip_fraction.item() == pytest.approx(1.0)


def test_sapo_is_smooth_and_has_its_two_temperatures() -> None:
    for advantage, tau in ((2.0, 1.0), (-2.0, 3.0)):
        gate = 4 / tau / (1 + math.exp(-tau * (1.5 - 1)))
        found = sapo(*one(1.5, advantage), tau_negative=3.0)
        assert found.loss.item() == pytest.approx(-gate * advantage, rel=1e-7)
    far, near = (one(ratio, 1.0) for ratio in (3.0, 1.5))
    slopes = [torch.autograd.grad(sapo(*b).loss, b[0])[0].item() for b in (near, far)]
    assert slopes[0] < slopes[1] < 0.0


@pytest.mark.parametrize("name", RATIO_LOSSES)
def test_on_the_first_minibatch_every_loss_is_the_policy_gradient(name: str) -> None:
    logp_BT, _, advantages_BT, mask_BT = batch()
    grads = []
    for loss in (RATIO_LOSSES[name], reinforce):
        leaf_BT = logp_BT.clone().requires_grad_()
        old = () if loss is reinforce else (logp_BT,)
        found = loss(leaf_BT, *old, advantages_BT, mask_BT, averaging="token-mean")
        assert found.ratio_max.item() == 1.0
        assert found.approx_kl.item() == 0.0
        assert found.clip_fraction.item() == 0.0
        assert found.tokens.item() == mask_BT.sum().item()
        grads.append(torch.autograd.grad(found.loss, leaf_BT)[0])
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-6, atol=1e-9)


def test_without_reach_of_the_clip_ppo_is_importance_sampling() -> None:
    logp_BT, old_BT, advantages_BT, mask_BT = batch()
    found = ppo_clip(logp_BT, old_BT, advantages_BT, mask_BT, clip_low=1.0, clip_high=1e9)
    ratio_BT = (logp_BT - old_BT).exp()
    expected = -(ratio_BT * advantages_BT * mask_BT).sum() / mask_BT.sum()
    torch.testing.assert_close(found.loss, expected)
    far = ppo_clip(logp_BT, old_BT, advantages_BT, mask_BT, clip_low=1.0, clip_high=1e9, dual_clip=1e9)
    assert far.loss == found.loss


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", RATIO_LOSSES)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10**6), cut=st.integers(1, 4), padding=st.integers(0, 3))
def test_micro_batches_and_padding_change_no_loss_and_no_gradient(
    name: str, mode: Averaging, seed: int, cut: int, padding: int
) -> None:
    logp_BT, old_BT, advantages_BT, mask_BT = batch(seed)
    total = denominator(mask_BT, mode, norm_length=11)
    whole_BT, parts_BT = logp_BT.clone().requires_grad_(), logp_BT.clone().requires_grad_()
    call = partial(RATIO_LOSSES[name], averaging=mode, denominator=total)
    whole = call(whole_BT, old_BT, advantages_BT, mask_BT).loss
    whole.backward()
    loss = 0.0
    for rows in (slice(0, cut), slice(cut, None)):
        garbage = (700.0, -700.0, 1e300, 0.0)
        wide = [
            torch.nn.functional.pad(x[rows], (0, padding), value=value)
            for x, value in zip((parts_BT, old_BT, advantages_BT, mask_BT), garbage, strict=True)
        ]
        part = call(*wide).loss
        part.backward()
        loss += part.item()
    assert loss == pytest.approx(whole.item(), rel=1e-12, abs=1e-12)
    torch.testing.assert_close(parts_BT.grad, whole_BT.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [*RATIO_LOSSES, "reinforce"])
def test_not_even_nan_under_the_mask_reaches_the_gradient(name: str) -> None:
    logp_BT, old_BT, advantages_BT, mask_BT = batch()
    off_BT = ~mask_BT.bool()
    dirty = [x.masked_fill(off_BT, float("nan")) for x in (logp_BT, old_BT, advantages_BT)]
    leaf_BT = dirty[0].requires_grad_()
    if name == "reinforce":
        found = reinforce(leaf_BT, dirty[2], mask_BT)
    else:
        found = RATIO_LOSSES[name](leaf_BT, dirty[1], dirty[2], mask_BT)
    found.loss.backward()
    assert leaf_BT.grad is not None
    assert leaf_BT.grad[off_BT].eq(0).all()
    assert leaf_BT.grad.isfinite().all()
    assert all(value.isfinite() for value in found)


def test_only_the_policy_gets_a_gradient() -> None:
    logp_BT, old_BT, advantages_BT, mask_BT = (x.clone().requires_grad_() for x in batch())
    ppo_clip(logp_BT, old_BT, advantages_BT, mask_BT).loss.backward()
    assert logp_BT.grad is not None
    assert old_BT.grad is None
    assert advantages_BT.grad is None


def test_a_flipped_advantage_flips_the_gradient() -> None:
    logp_BT, _, advantages_BT, mask_BT = batch()
    leaf_BT = logp_BT.clone().requires_grad_()
    grads = [torch.autograd.grad(reinforce(leaf_BT, s * advantages_BT, mask_BT).loss, leaf_BT)[0] for s in (1, -1)]
    assert grads[0].abs().sum() > 0
    assert grads[0].equal(-grads[1])
    up = torch.ones_like(advantages_BT)
    assert torch.autograd.grad(reinforce(leaf_BT, up, mask_BT).loss, leaf_BT)[0].max() <= 0  # descent raises log π


@pytest.mark.parametrize(
    ("value", "clip", "loss", "grad", "clipped"),
    [
        (1.1, 0.2, 0.5 * 0.9**2, -0.9, 0.0),
        (1.5, 0.2, 0.5 * 0.8**2, 0.0, 1.0),  # moved closer than the clip allows: judged at 1.2, flat
        (1.5, None, 0.5 * 0.5**2, -0.5, 0.0),
        (0.5, 0.2, 0.5 * 1.5**2, -1.5, 0.0),  # moved away: the larger, unclipped error
    ],
)
def test_value_loss_by_hand(value: float, clip: float | None, loss: float, grad: float, clipped: float) -> None:
    leaf_BT = torch.tensor([[value]], dtype=torch.float64, requires_grad=True)
    old_BT, returns_BT = (torch.tensor([[x]], dtype=torch.float64) for x in (1.0, 2.0))
    found = value_loss(leaf_BT, old_BT, returns_BT, torch.ones(1, 1), clip=clip)
    found.loss.backward()
    assert leaf_BT.grad is not None
    assert found.loss.item() == pytest.approx(loss)
    assert leaf_BT.grad.item() == pytest.approx(grad)
    assert found.clip_fraction.item() == pytest.approx(clipped, rel=1e-7)


def test_value_loss_ignores_what_is_masked_and_adds_up_over_micro_batches() -> None:
    values_BT, old_BT, returns_BT, mask_BT = batch(3)
    total = denominator(mask_BT, "token-mean")
    whole = value_loss(values_BT, old_BT, returns_BT, mask_BT)
    dirty = [x.masked_fill(~mask_BT.bool(), float("inf")) for x in (values_BT, old_BT, returns_BT)]
    parts = [value_loss(*(x[r : r + 1] for x in (*dirty, mask_BT)), denominator=total).loss for r in range(5)]
    assert sum(p.item() for p in parts) == pytest.approx(whole.loss.item(), rel=1e-12)


def test_shapes_that_would_broadcast_are_refused() -> None:
    logp_BT, old_BT, advantages_BT, mask_BT = batch()
    with pytest.raises(ValueError, match=r"advantages_BT \(5, 1\)"):
        ppo_clip(logp_BT, old_BT, advantages_BT[:, :1], mask_BT)
    with pytest.raises(ValueError, match=r"returns_BT \(5, 1\)"):
        value_loss(logp_BT, old_BT, advantages_BT[:, :1], mask_BT)
