"""From rewards to returns and to advantages over a critic.

Shapes: B rows, T tokens. Row b is one episode: its unmasked tokens in order, after which there is no value. Masked
positions (padding, or text the policy did not write) are stepped over: they take no time, whatever stands there is
never read, and they come back as 0.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from backflip.maths.tensors import check_shapes, keep


class GAE(NamedTuple):
    """Advantages (not whitened) and the returns the critic should predict, both (B, T) and 0 under the mask."""

    advantages_BT: Tensor
    returns_BT: Tensor


def place_scores(scores_B: Tensor, mask_BT: Tensor) -> Tensor:
    """A reward per token that is the row's score on its last unmasked token and 0 elsewhere, shape (B, T).

    Raises ValueError for a row without any response token: its score would vanish.
    """
    if scores_B.shape != mask_BT.shape[:1]:
        raise ValueError(f"{tuple(scores_B.shape)} scores do not fit a mask of shape {tuple(mask_BT.shape)}")
    on_BT = mask_BT.bool()
    empty = (~on_BT.any(dim=-1)).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"row {empty[0]} has no response token to carry its score")
    left_BT = on_BT.flip(-1).cumsum(-1).flip(-1)
    return keep(scores_B.unsqueeze(-1).expand(mask_BT.shape), on_BT & (left_BT == 1))


def gae(rewards_BT: Tensor, values_BT: Tensor, mask_BT: Tensor, *, gamma: float, lam: float) -> GAE:
    """Generalised advantage estimation, Schulman et al. (1506.02438), eq. 16.

        δ_t = r_t + γ V_{t+1} − V_t        Â_t = δ_t + γλ Â_{t+1}        R_t = Â_t + V_t

    V after the last token is 0: the episode is over, so an output cut at the length limit counts as finished.
    """
    check_shapes(rewards_BT=rewards_BT, values_BT=values_BT, mask_BT=mask_BT)
    on_BT = mask_BT.bool()
    rewards_BT, values_BT = keep(rewards_BT, on_BT), keep(values_BT, on_BT)
    advantage_B = next_value_B = torch.zeros_like(values_BT[:, 0])
    columns: list[Tensor] = []
    for t in reversed(range(mask_BT.shape[1])):
        delta_B = rewards_BT[:, t] + gamma * next_value_B - values_BT[:, t]
        advantage_B = torch.where(on_BT[:, t], delta_B + gamma * lam * advantage_B, advantage_B)
        next_value_B = torch.where(on_BT[:, t], values_BT[:, t], next_value_B)
        columns.append(advantage_B)
    advantages_BT = keep(torch.stack(columns[::-1], dim=1), on_BT)
    return GAE(advantages_BT, advantages_BT + values_BT)


def discounted_returns(rewards_BT: Tensor, mask_BT: Tensor, *, gamma: float) -> Tensor:
    """R_t = r_t + γ R_{t+1} over the unmasked tokens (Sutton & Barto, eq. 3.9), shape (B, T)."""
    return gae(rewards_BT, torch.zeros_like(rewards_BT), mask_BT, gamma=gamma, lam=1.0).returns_BT
