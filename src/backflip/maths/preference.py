"""Losses that learn from comparisons: reward models (Bradley–Terry, best of K) and policies (DPO, cDPO, IPO).

Shapes: N comparisons, K completions of one prompt. `p_left_N` is the belief that the left (or chosen) one is better:
1 for a clear answer, ½ for a tie, anything between for noisy or pooled answers. A loss is Σ w_n l_n / denominator; the
denominator is Σ w_n unless given, and it is given (for the whole step) when the batch is one of several micro-batches.
A ranking of K is C(K,2) comparisons of weight 1/C(K,2) each (InstructGPT 2203.02155, eq. 1).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from backflip.maths.tensors import check_shapes


class PreferenceLoss(NamedTuple):
    """A loss, and how often the scores agree with the labels.

    `accuracy` is over the `decided` comparisons of this batch, those whose label is not a tie (equal scores count
    one half); it is 0 when `decided` is 0. Scalars; all but `loss` detached.
    """

    loss: Tensor
    accuracy: Tensor
    decided: Tensor


class DirectLoss(NamedTuple):
    """A loss on the policy itself, with the implicit rewards β log(π/π_ref) of both sides, (N,) and detached."""

    loss: Tensor
    accuracy: Tensor
    decided: Tensor
    chosen_rewards_N: Tensor
    rejected_rewards_N: Tensor


def bradley_terry(
    scores_left_N: Tensor,
    scores_right_N: Tensor,
    p_left_N: Tensor | None = None,
    *,
    margin_N: Tensor | None = None,
    error_rate: float = 0.0,
    weight_N: Tensor | None = None,
    denominator: Tensor | float | None = None,
) -> PreferenceLoss:
    """−p log σ(d − m) − (1 − p) log σ(−d − m), d = score left − score right. Christiano et al. (1706.03741), eq. 1.

    The margin m ≥ 0 asks the winner, whichever side it is, to win by that much (Llama 2, 2307.09288, eq. 2).
    Where people answer blindly with probability ε = `error_rate`, (1 − ε) σ + ε/2 stands in place of σ (section 2.2.3 there,
    with ε = 0.1): a label that no score explains then pulls less and less. Swapping the sides and p for 1 − p changes
    nothing. Stable for any finite gap.
    """
    check_error_rate(error_rate)
    gap_N = _gap(scores_left_N, scores_right_N)
    p_N = _beliefs(p_left_N, gap_N)
    margin_N = torch.zeros_like(gap_N) if margin_N is None else margin_N
    check_shapes(gap_N=gap_N, margin_N=margin_N)
    left_N, right_N = _log_sigmoid(gap_N - margin_N, error_rate), _log_sigmoid(-gap_N - margin_N, error_rate)
    loss_N = -p_N * left_N - (1.0 - p_N) * right_N
    return PreferenceLoss(_weighted(loss_N, weight_N, denominator), *_agreement(gap_N, p_N))


def pick_best(
    scores_NK: Tensor,
    best_N: Tensor,
    *,
    weight_N: Tensor | None = None,
    denominator: Tensor | float | None = None,
) -> PreferenceLoss:
    """−log softmax(scores)[best] over the K completions shown together: Ziegler et al. (1909.08593), eq. 1.

    `best_N` is the index of the one picked. With K = 2 it is `bradley_terry`. Here every row is decided, and the
    accuracy is how often the picked one has the highest score.
    """
    logp_NK = scores_NK.log_softmax(dim=-1)
    loss_N = -logp_NK.gather(-1, best_N.unsqueeze(-1)).squeeze(-1)
    right_N = scores_NK.detach().argmax(dim=-1) == best_N
    decided = torch.tensor(len(best_N), device=scores_NK.device)
    accuracy = right_N.to(scores_NK.dtype).sum() / decided.clamp(min=1)
    return PreferenceLoss(_weighted(loss_N, weight_N, denominator), accuracy, decided)


def dpo(
    chosen_logp_N: Tensor,
    rejected_logp_N: Tensor,
    ref_chosen_logp_N: Tensor,
    ref_rejected_logp_N: Tensor,
    *,
    beta: float,
    p_chosen_N: Tensor | None = None,
    weight_N: Tensor | None = None,
    denominator: Tensor | float | None = None,
) -> DirectLoss:
    """Bradley–Terry on the implicit rewards β log(π/π_ref): Rafailov et al. (2305.18290), eq. 7.

    Log-probabilities are of whole sequences (sums over tokens, nats). Soft labels are allowed.
    """
    chosen_N = beta * (chosen_logp_N - ref_chosen_logp_N)
    rejected_N = beta * (rejected_logp_N - ref_rejected_logp_N)
    found = bradley_terry(chosen_N, rejected_N, p_chosen_N, weight_N=weight_N, denominator=denominator)
    return DirectLoss(*found, chosen_N.detach(), rejected_N.detach())


def cdpo(
    chosen_logp_N: Tensor,
    rejected_logp_N: Tensor,
    ref_chosen_logp_N: Tensor,
    ref_rejected_logp_N: Tensor,
    *,
    beta: float,
    label_smoothing: float,
    weight_N: Tensor | None = None,
    denominator: Tensor | float | None = None,
) -> DirectLoss:
    """DPO when a label is wrong with probability ε = `label_smoothing`: every p is 1 − ε. Mitchell (2023)."""
    if not 0.0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing must be at least 0 and below 0.5, not {label_smoothing}")
    return dpo(
        chosen_logp_N,
        rejected_logp_N,
        ref_chosen_logp_N,
        ref_rejected_logp_N,
        beta=beta,
        p_chosen_N=torch.full_like(chosen_logp_N, 1.0 - label_smoothing),
        weight_N=weight_N,
        denominator=denominator,
    )


def ipo(
    chosen_logp_N: Tensor,
    rejected_logp_N: Tensor,
    ref_chosen_logp_N: Tensor,
    ref_rejected_logp_N: Tensor,
    *,
    beta: float,
    p_chosen_N: Tensor | None = None,
    weight_N: Tensor | None = None,
    denominator: Tensor | float | None = None,
) -> DirectLoss:
    """p (h − 1/2β)² + (1 − p) (h + 1/2β)², h = log(π/π_ref) chosen − rejected: Azar et al. (2310.12036), eq. 17.

    Its minimum is at h = (2p − 1)/2β, finite even for certain labels, where DPO's is not. Give log-probabilities
    averaged over tokens instead of summed if lengths differ much.
    """
    h_N = _gap(chosen_logp_N - ref_chosen_logp_N, rejected_logp_N - ref_rejected_logp_N)
    p_N = _beliefs(p_chosen_N, h_N)
    goal = 1.0 / (2.0 * beta)
    loss_N = p_N * (h_N - goal).square() + (1.0 - p_N) * (h_N + goal).square()
    return DirectLoss(
        _weighted(loss_N, weight_N, denominator),
        *_agreement(h_N, p_N),
        (beta * (chosen_logp_N - ref_chosen_logp_N)).detach(),
        (beta * (rejected_logp_N - ref_rejected_logp_N)).detach(),
    )


def _gap(left_N: Tensor, right_N: Tensor) -> Tensor:
    check_shapes(left_N=left_N, right_N=right_N)
    return left_N - right_N


def _beliefs(p_N: Tensor | None, like_N: Tensor) -> Tensor:
    if p_N is None:
        return torch.ones_like(like_N)
    check_shapes(p_N=p_N, scores_N=like_N)
    if not bool(((p_N >= 0.0) & (p_N <= 1.0)).all()):
        raise ValueError("a belief p is a probability between 0 and 1")
    return p_N.to(like_N.dtype)


def _weighted(loss_N: Tensor, weight_N: Tensor | None, denominator: Tensor | float | None) -> Tensor:
    weight_N = torch.ones_like(loss_N) if weight_N is None else weight_N.to(loss_N.dtype)
    check_shapes(loss_N=loss_N, weight_N=weight_N)
    if denominator is None:
        denominator = weight_N.sum()
        if not bool(denominator > 0):
            raise ValueError("the weights of the comparisons add up to nothing")
    return (weight_N * loss_N).sum() / denominator


def _agreement(gap_N: Tensor, p_N: Tensor) -> tuple[Tensor, Tensor]:
    """The share of decided comparisons whose gap has the label's sign, and their number."""
    label_N = (p_N - 0.5).sign()
    decided = (label_N != 0).sum()
    right_N = 0.5 + 0.5 * (gap_N.detach().sign() * label_N)
    return (right_N * (label_N != 0)).sum() / decided.clamp(min=1), decided


def check_error_rate(error_rate: float) -> None:
    """Raises ValueError unless the share of blind answers is at least 0 and below 1."""
    if not 0.0 <= error_rate < 1.0:
        raise ValueError(f"error_rate must be at least 0 and below 1, not {error_rate}")


def _log_sigmoid(x_N: Tensor, error_rate: float) -> Tensor:
    """log((1 − ε) σ(x) + ε/2)."""
    if not error_rate:
        return logsigmoid(x_N)
    blind = x_N.new_full((), math.log(error_rate / 2.0))
    return torch.logaddexp(math.log1p(-error_rate) + logsigmoid(x_N), blind)
