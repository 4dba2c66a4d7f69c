"""Advantages without a critic: a sample is measured against others of its prompt.

Shapes: B rows, T tokens. `group_B` holds whole numbers, equal for the samples of one prompt, in any order. The
statistics are taken in float64 whatever the scores' type, so that a group of equal scores gets 0 and not a rounding
error divided by 1e-6. `per_token` spreads one advantage per row over its tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from backflip.maths.returns import discounted_returns
from backflip.maths.tensors import keep, whiten


def group_normalized(scores_B: Tensor, group_B: Tensor, *, eps: float = 1e-6) -> Tensor:
    """GRPO: Â_i = (r_i − mean) / (std + eps) over the group, unbiased std; shape (B,).

    DeepSeekMath (2402.03300), section 4.1.2. Raises ValueError for a group of one sample.
    """
    group = _groups(scores_B, group_B, "group-normalised advantages")
    centred_B = scores_B.double() - group.mean(scores_B)
    std_B = (group.mean(centred_B.square()) * group.size_B / (group.size_B - 1)).sqrt()
    return (centred_B / (std_B + eps)).to(scores_B.dtype)


def group_centered(scores_B: Tensor, group_B: Tensor) -> Tensor:
    """Dr. GRPO: Â_i = r_i − mean over the group, shape (B,). Liu et al. (2503.20783), section 3.2.

    Raises ValueError for a group of one sample, whose advantage would always be 0.
    """
    group = _groups(scores_B, group_B, "group-centred advantages")
    return (scores_B.double() - group.mean(scores_B)).to(scores_B.dtype)


def rloo(scores_B: Tensor, group_B: Tensor) -> Tensor:
    """Leave one out: Â_i = r_i − mean of the others of its group, shape (B,). Ahmadian et al. (2402.14740).

    Raises ValueError for a group of one sample.
    """
    group = _groups(scores_B, group_B, "leave-one-out advantages")
    scale_B = group.size_B / (group.size_B - 1)
    return ((scores_B.double() - group.mean(scores_B)) * scale_B).to(scores_B.dtype)


def reinforce_plus_plus(rewards_BT: Tensor, mask_BT: Tensor, *, gamma: float = 1.0) -> Tensor:
    """REINFORCE++: discounted returns, whitened over all tokens of the batch with unbiased variance; (B, T).

    Hu (2501.03262). Raises ValueError when there are fewer than two response tokens.
    """
    return whiten(discounted_returns(rewards_BT, mask_BT, gamma=gamma), mask_BT, unbiased=True)


def reinforce_plus_plus_baseline(scores_B: Tensor, group_B: Tensor, mask_BT: Tensor) -> Tensor:
    """REINFORCE++-baseline: group-centred scores on every token, whitened over the batch (unbiased); (B, T).

    Hu (2501.03262). Raises ValueError for a group of one sample.
    """
    return whiten(per_token(group_centered(scores_B, group_B), mask_BT), mask_BT, unbiased=True)


def remax(rewards_BT: Tensor, baseline_B: Tensor, mask_BT: Tensor) -> Tensor:
    """ReMax: Â_t = Σ_{s≥t} r_s − r(greedy output of the same prompt), shape (B, T). Li et al. (2310.10505)."""
    return keep(discounted_returns(rewards_BT, mask_BT, gamma=1.0) - baseline_B.unsqueeze(-1), mask_BT)


def per_token(advantages_B: Tensor, mask_BT: Tensor) -> Tensor:
    """Each row's advantage on each of its response tokens, 0 elsewhere; shape (B, T)."""
    return keep(advantages_B.unsqueeze(-1).expand(mask_BT.shape), mask_BT)


class _Groups(NamedTuple):
    """Which group each row is in (0 … P−1), and how many rows that group has, as float64."""

    place_B: Tensor
    size_B: Tensor

    def mean(self, x_B: Tensor) -> Tensor:
        """The mean of each row's group, in float64."""
        sums = torch.zeros(len(x_B), dtype=torch.float64, device=x_B.device)
        return sums.index_add(0, self.place_B, x_B.double())[self.place_B] / self.size_B


def _groups(scores_B: Tensor, group_B: Tensor, what: str) -> _Groups:
    if scores_B.ndim != 1 or scores_B.shape != group_B.shape:
        raise ValueError(f"scores {tuple(scores_B.shape)} and groups {tuple(group_B.shape)} must be two equal rows")
    names, place_B, counts = torch.unique(group_B, return_inverse=True, return_counts=True)
    alone = (counts < 2).nonzero().flatten().tolist()
    if alone:
        raise ValueError(f"{what} need at least two samples per prompt, and group {int(names[alone[0]])} has one")
    return _Groups(place_B, counts[place_B].double())
