"""Advantages without a critic: a sample is measured against others of its prompt.

Shapes: B rows, T tokens. `group_B` holds whole numbers, equal for the samples of one prompt, in any order. The
statistics are taken in float64 whatever the scores' type, so that a group of equal scores gets 0 and not a rounding
error divided by 1e-6. `per_token` spreads one advantage per row over its tokens. S counts the
steps of a row, N those of all rows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from backflip.maths.returns import discounted_returns
from backflip.maths.tensors import check_shapes, keep, whiten


def group_normalized(scores_B: Tensor, group_B: Tensor, *, eps: float = 1e-6) -> Tensor:
    """GRPO: Â_i = (r_i − mean) / (std + eps) over the group, unbiased std; shape (B,).

    DeepSeekMath (2402.03300), section 4.1.2. Raises ValueError for a group of one sample.
    """
    group = _groups(scores_B, group_B, "group-normalised advantages")
    return _normalized(scores_B, group, eps).to(scores_B.dtype)


def group_process(rewards_BT: Tensor, steps_BT: Tensor, group_B: Tensor, mask_BT: Tensor, *, eps: float = 1e-6) -> Tensor:
    """GRPO with process supervision: a token's advantage is what its own step and those after it are worth; shape (B, T).

        r̃_ij = (r_ij − mean(R)) / (std(R) + eps)        Â_it = Σ_{j: end of step j ≥ t} r̃_ij

    R holds the reward r_ij of every step j of every row i of the group; std is the unbiased one. DeepSeekMath (2402.03300),
    section 4.1.3. `steps_BT` marks the tokens that end a step; a row's last unmasked token ends one too, so that no token and no
    reward is left over. A step's reward is the sum of the rewards on its tokens. With one step in every row this is
    `group_normalized` on each token. Raises ValueError for a group of one sample.
    """
    check_shapes(rewards_BT=rewards_BT, steps_BT=steps_BT, mask_BT=mask_BT)
    on_BT = mask_BT.bool()
    _groups(rewards_BT[:, 0], group_B, "advantages of steps")
    ends_BT = on_BT & (steps_BT.bool() | (on_BT.flip(-1).cumsum(-1).flip(-1) == 1))
    step_BT = ends_BT.cumsum(-1) - ends_BT.long()  # which step of its row a token belongs to
    rewards_BS = torch.zeros(rewards_BT.shape, dtype=torch.float64, device=rewards_BT.device)
    rewards_BS = rewards_BS.scatter_add(1, step_BT, keep(rewards_BT, on_BT).double())
    taken_BS = torch.arange(step_BT.shape[1], device=step_BT.device) < ends_BT.sum(1, keepdim=True)
    # Every step is a row of a long column, and the steps of a group are a group.
    flat_N = rewards_BS[taken_BS]
    steps = _groups(flat_N, group_B.unsqueeze(1).expand(taken_BS.shape)[taken_BS], "advantages of steps")
    normalized_BS = torch.zeros_like(rewards_BS).masked_scatter(taken_BS, _normalized(flat_N, steps, eps))
    later_BS = normalized_BS.flip(-1).cumsum(-1).flip(-1)
    return keep(later_BS.gather(1, step_BT), on_BT).to(rewards_BT.dtype)


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


def _normalized(scores_B: Tensor, group: _Groups, eps: float) -> Tensor:
    """Scores less their group's mean over its unbiased standard deviation, in float64."""
    centred_B = scores_B.double() - group.mean(scores_B)
    std_B = (group.mean(centred_B.square()) * group.size_B / (group.size_B - 1)).sqrt()
    return centred_B / (std_B + eps)


def _groups(scores_B: Tensor, group_B: Tensor, what: str) -> _Groups:
    if scores_B.ndim != 1 or scores_B.shape != group_B.shape:
        raise ValueError(f"scores {tuple(scores_B.shape)} and groups {tuple(group_B.shape)} must be two equal rows")
    names, place_B, counts = torch.unique(group_B, return_inverse=True, return_counts=True)
    alone = (counts < 2).nonzero().flatten().tolist()
    if alone:
        raise ValueError(f"{what} need at least two samples per prompt, and group {int(names[alone[0]])} has one")
    return _Groups(place_B, counts[place_B].double())
