"""The losses that move a policy along its advantages, and a critic towards its returns.

Shapes: B rows, T tokens. ρ = π/π_old per token, Â the advantage, mask 1 on response tokens. Each loss is a mean over
the batch chosen by `averaging`; give `denominator` (counted over the whole step, see `tensors.denominator`) when
the batch is one of several micro-batches. Only `logp_BT` (or `values_BT`) carries a gradient.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from backflip.maths.tensors import Averaging, aggregate, check_shapes, keep, masked_mean


class PolicyLoss(NamedTuple):
    """A policy loss and what to watch beside it; all scalars, all but `loss` detached.

    The rest describe this micro-batch alone, over its `tokens` response tokens: `clip_fraction` of them were
    clipped; `approx_kl` is k3 and `approx_kl_k1` is k1 of KL(π_old‖π) in nats per token; `ratio_mean` and
    `ratio_max` are of ρ.
    """

    loss: Tensor
    clip_fraction: Tensor
    approx_kl: Tensor
    approx_kl_k1: Tensor
    ratio_mean: Tensor
    ratio_max: Tensor
    tokens: Tensor


class ValueLoss(NamedTuple):
    """A critic's loss and the fraction of tokens whose prediction was clipped; scalars."""

    loss: Tensor
    clip_fraction: Tensor


def ppo_clip(
    logp_BT: Tensor,
    old_logp_BT: Tensor,
    advantages_BT: Tensor,
    mask_BT: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
    averaging: Averaging = "token-mean",
    denominator: Tensor | float | None = None,
) -> PolicyLoss:
    """−min(ρÂ, clip(ρ, 1−clip_low, 1+clip_high) Â): PPO, Schulman et al. (1707.06347), eq. 7.

    Unequal clips are DAPO's clip-higher (2503.14476, eq. 10). With `dual_clip` = c > 1 the loss of a token with
    Â < 0 is at most −cÂ (Ye et al. 1912.09729), so that one exploding ratio cannot own the step.
    """
    log_ratio_BT, advantages_BT = _at_the_door(logp_BT, old_logp_BT, advantages_BT, mask_BT)
    ratio_BT = log_ratio_BT.exp()
    plain_BT = -advantages_BT * ratio_BT
    clipped_BT = -advantages_BT * ratio_BT.clamp(1.0 - clip_low, 1.0 + clip_high)
    loss_BT = torch.maximum(plain_BT, clipped_BT)
    if dual_clip is not None:
        if not dual_clip > 1.0:
            raise ValueError(f"dual_clip must be above 1, not {dual_clip}")
        loss_BT = torch.where(advantages_BT < 0, torch.minimum(loss_BT, -dual_clip * advantages_BT), loss_BT)
    loss = aggregate(loss_BT, mask_BT, averaging, denominator=denominator)
    return _report(loss, log_ratio_BT, clipped_BT > plain_BT, mask_BT)


def surrogate(
    logp_BT: Tensor,
    old_logp_BT: Tensor,
    advantages_BT: Tensor,
    mask_BT: Tensor,
    *,
    averaging: Averaging = "token-mean",
    denominator: Tensor | float | None = None,
) -> PolicyLoss:
    """−Â ρ, nothing clipped: TRPO's objective (1502.05477, eq. 14), which only holds near the old policy."""
    log_ratio_BT, advantages_BT = _at_the_door(logp_BT, old_logp_BT, advantages_BT, mask_BT)
    loss = aggregate(-advantages_BT * log_ratio_BT.exp(), mask_BT, averaging, denominator=denominator)
    return _report(loss, log_ratio_BT, torch.zeros_like(mask_BT, dtype=torch.bool), mask_BT)


def reinforce(
    logp_BT: Tensor,
    advantages_BT: Tensor,
    mask_BT: Tensor,
    *,
    averaging: Averaging = "token-mean",
    denominator: Tensor | float | None = None,
) -> PolicyLoss:
    """−Â log π: the policy gradient, Williams (1992); also A2C's, with a critic's advantages.

    For tokens drawn from π itself: the ratio is 1 by definition and nothing is clipped.
    """
    log_ratio_BT, advantages_BT = _at_the_door(logp_BT, logp_BT.detach(), advantages_BT, mask_BT)
    loss_BT = -advantages_BT * keep(logp_BT, mask_BT)
    loss = aggregate(loss_BT, mask_BT, averaging, denominator=denominator)
    return _report(loss, log_ratio_BT, torch.zeros_like(mask_BT, dtype=torch.bool), mask_BT)


def cispo(
    logp_BT: Tensor,
    old_logp_BT: Tensor,
    advantages_BT: Tensor,
    mask_BT: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    averaging: Averaging = "token-mean",
    denominator: Tensor | float | None = None,
) -> PolicyLoss:
    """−sg[clip(ρ, 1−clip_low, 1+clip_high)] Â log π: MiniMax-M1 (2506.13585), eqs. 4–5.

    The weight is clipped and the token kept: unlike PPO's clip, every token goes on giving a gradient.
    """
    log_ratio_BT, advantages_BT = _at_the_door(logp_BT, old_logp_BT, advantages_BT, mask_BT)
    ratio_BT = log_ratio_BT.exp().detach()
    weight_BT = ratio_BT.clamp(1.0 - clip_low, 1.0 + clip_high)
    loss_BT = -weight_BT * advantages_BT * keep(logp_BT, mask_BT)
    loss = aggregate(loss_BT, mask_BT, averaging, denominator=denominator)
    return _report(loss, log_ratio_BT, weight_BT != ratio_BT, mask_BT)


def gspo(
    logp_BT: Tensor,
    old_logp_BT: Tensor,
    advantages_BT: Tensor,
    mask_BT: Tensor,
    *,
    clip_low: float = 3e-4,
    clip_high: float = 4e-4,
    averaging: Averaging = "seq-mean-token-mean",
    denominator: Tensor | float | None = None,
) -> PolicyLoss:
    """PPO's clip on one ratio per sequence, s = exp(mean_t log ρ_t): Zheng et al. (2507.18071), eqs. 5–7.

    Token t's ratio is sg[s] · π_t/sg[π_t] (their eq. 14, GSPO-token): the value of s, and a gradient for each token
    under its own advantage.
    """
    log_ratio_BT, advantages_BT = _at_the_door(logp_BT, old_logp_BT, advantages_BT, mask_BT)
    length_B1 = mask_BT.bool().sum(dim=-1, keepdim=True).clamp(min=1)
    log_s_B1 = log_ratio_BT.sum(dim=-1, keepdim=True) / length_B1
    s_BT = (log_s_B1.detach() + log_ratio_BT - log_ratio_BT.detach()).exp()
    plain_BT = -advantages_BT * s_BT
    clipped_BT = -advantages_BT * s_BT.clamp(1.0 - clip_low, 1.0 + clip_high)
    loss = aggregate(torch.maximum(plain_BT, clipped_BT), mask_BT, averaging, denominator=denominator)
    return _report(loss, log_ratio_BT, clipped_BT > plain_BT, mask_BT)


def sapo(
    logp_BT: Tensor,
    old_logp_BT: Tensor,
    advantages_BT: Tensor,
    mask_BT: Tensor,
    *,
    tau_positive: float = 1.0,
    tau_negative: float = 1.05,
    averaging: Averaging = "seq-mean-token-mean",
    denominator: Tensor | float | None = None,
) -> PolicyLoss:
    """−(4/τ) σ(τ(ρ − 1)) Â with τ by the sign of Â: soft adaptive policy optimisation (2511.20347).

    A smooth gate in place of the clip: its slope is 1 at ρ = 1 and fades away from it. `clip_fraction` is 0.
    """
    log_ratio_BT, advantages_BT = _at_the_door(logp_BT, old_logp_BT, advantages_BT, mask_BT)
    positive_BT = torch.full_like(advantages_BT, tau_positive)
    tau_BT = torch.where(advantages_BT > 0, positive_BT, torch.full_like(advantages_BT, tau_negative))
    loss_BT = -advantages_BT * torch.sigmoid(tau_BT * (log_ratio_BT.exp() - 1.0)) * (4.0 / tau_BT)
    loss = aggregate(loss_BT, mask_BT, averaging, denominator=denominator)
    return _report(loss, log_ratio_BT, torch.zeros_like(mask_BT, dtype=torch.bool), mask_BT)


def value_loss(
    values_BT: Tensor,
    old_values_BT: Tensor,
    returns_BT: Tensor,
    mask_BT: Tensor,
    *,
    clip: float | None = 0.2,
    averaging: Averaging = "token-mean",
    denominator: Tensor | float | None = None,
) -> ValueLoss:
    """½ max((V − R)², (V_clip − R)²) with V_clip within ±clip of the old value; ½ (V − R)² when `clip` is None.

    The clipped form is of the first PPO code (openai/baselines) and Ziegler et al. (1909.08593), not of the paper.
    """
    check_shapes(values_BT=values_BT, old_values_BT=old_values_BT, returns_BT=returns_BT, mask_BT=mask_BT)
    values_BT, old_values_BT, returns_BT = (
        keep(values_BT, mask_BT),
        keep(old_values_BT.detach(), mask_BT),
        keep(returns_BT.detach(), mask_BT),
    )
    plain_BT = (values_BT - returns_BT).square()
    clipped_BT = plain_BT
    if clip is not None:
        near_BT = old_values_BT + (values_BT - old_values_BT).clamp(-clip, clip)
        clipped_BT = (near_BT - returns_BT).square()
    loss = 0.5 * aggregate(torch.maximum(plain_BT, clipped_BT), mask_BT, averaging, denominator=denominator)
    return ValueLoss(loss, masked_mean((clipped_BT > plain_BT).to(values_BT.dtype), mask_BT).detach())


def _at_the_door(logp_BT: Tensor, old_logp_BT: Tensor, advantages_BT: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
    """log ρ and Â, 0 under the mask before anything is computed from them, so that nothing there can overflow."""
    check_shapes(logp_BT=logp_BT, old_logp_BT=old_logp_BT, advantages_BT=advantages_BT, mask_BT=mask_BT)
    return keep(logp_BT - old_logp_BT.detach(), mask_BT), keep(advantages_BT.detach(), mask_BT)


def _report(loss: Tensor, log_ratio_BT: Tensor, clipped_BT: Tensor, mask_BT: Tensor) -> PolicyLoss:
    log_ratio_BT = log_ratio_BT.detach()
    ratio_BT = log_ratio_BT.exp()
    return PolicyLoss(
        loss=loss,
        clip_fraction=masked_mean(clipped_BT.to(log_ratio_BT.dtype), mask_BT),
        approx_kl=masked_mean(torch.expm1(log_ratio_BT) - log_ratio_BT, mask_BT),
        approx_kl_k1=masked_mean(-log_ratio_BT, mask_BT),
        ratio_mean=masked_mean(ratio_BT, mask_BT),
        ratio_max=keep(ratio_BT, mask_BT).max(),
        tokens=mask_BT.bool().sum(),
    )
