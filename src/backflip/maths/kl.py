"""How far a policy has moved from its reference, in nats, and the controller that prices the distance.

Shapes: B rows, T tokens, V vocabulary. Every estimator is per token, of KL(π‖π_ref) at tokens drawn from π;
masking and summing are the caller's. With r = π_ref/π (Schulman, "Approximating KL divergence", 2020):

    k1 = −log r            unbiased, may be negative      as a loss: gradient 0 in expectation
    k2 = ½ (log r)²        biased, small variance         as a loss: the gradient of KL(π‖π_ref)
    k3 = r − 1 − log r     unbiased, never negative       as a loss: the gradient of KL(π_ref‖π)
    k3+                    the value of k3, the gradient of k2
    abs = |log r|          neither; kept because published runs used it

As a penalty inside the reward, k1 gives the gradient of KL(π‖π_ref).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from backflip.maths.tensors import check_shapes

KLKind = Literal["k1", "k2", "k3", "k3+", "abs"]


def k1(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """log π − log π_ref: the unbiased, signed estimator. Any shape, nats."""
    check_shapes(logp=logp, ref_logp=ref_logp)
    return logp - ref_logp


def k2(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """½ (log π − log π_ref)². Any shape, nats; not negative."""
    return 0.5 * k1(logp, ref_logp).square()


def k3(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """π_ref/π − 1 − log(π_ref/π), the penalty in GRPO's loss (DeepSeekMath 2402.03300, eq. 4). Not negative.

    `expm1` keeps it exact near 0, where r − 1 − log r would cancel.
    """
    log_ratio = -k1(logp, ref_logp)
    return torch.expm1(log_ratio) - log_ratio


def abs_kl(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """|log π − log π_ref|. Any shape, nats."""
    return k1(logp, ref_logp).abs()


def k3_plus(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """The value of k3 with the gradient of k2, whose expectation is the gradient of KL(π‖π_ref)."""
    differentiable = k2(logp, ref_logp)
    return differentiable + (k3(logp, ref_logp) - differentiable).detach()


def kl_penalty(logp: Tensor, ref_logp: Tensor, kind: KLKind) -> Tensor:
    """The estimator called `kind`. Raises ValueError for an unknown one."""
    estimators = {"k1": k1, "k2": k2, "k3": k3, "k3+": k3_plus, "abs": abs_kl}
    if kind not in estimators:
        raise ValueError(f"unknown KL estimator {kind!r}; use one of {', '.join(estimators)}")
    return estimators[kind](logp, ref_logp)


def exact_kl(logits_BTV: Tensor, ref_logits_BTV: Tensor) -> Tensor:
    """Σ_v π(v) (log π(v) − log π_ref(v)) over the whole vocabulary, nats per token, shape (B, T).

    A token with π(v) = 0 adds 0; one with π(v) > 0 and π_ref(v) = 0 makes the result inf.
    """
    check_shapes(logits_BTV=logits_BTV, ref_logits_BTV=ref_logits_BTV)
    logp_BTV = logits_BTV.log_softmax(dim=-1)
    never_BTV = logp_BTV == -torch.inf
    gap_BTV = logp_BTV.masked_fill(never_BTV, 0.0) - ref_logits_BTV.log_softmax(dim=-1).masked_fill(never_BTV, 0.0)
    return (logp_BTV.exp() * gap_BTV).sum(dim=-1)


def adaptive_kl_coef(coef: float, kl: float, *, target: float, horizon: float, n: int) -> float:
    """β ← β · (1 + clip(KL/target − 1, ±0.2) · n/horizon): Ziegler et al. (1909.08593), as in their code.

    `kl` and `target` are nats per sequence, `n` the episodes since the last call, `horizon` episodes.
    Raises ValueError for a target or horizon that is not above 0, or a KL that is not finite.
    """
    if not target > 0.0 or not horizon > 0.0:
        raise ValueError(f"target and horizon must be above 0, not {target} and {horizon}")
    if not abs(kl) < float("inf"):
        raise ValueError(f"the KL to the reference is {kl}; the coefficient cannot follow it")
    error = min(max(kl / target - 1.0, -0.2), 0.2)
    return coef * (1.0 + error * n / horizon)
