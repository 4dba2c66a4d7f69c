"""From logits to tokens: the distribution that is sampled, and the draw.

Legend: B rows, V vocabulary, N blocks of the vocabulary, W tokens in a block.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from backflip.errors import ConfigError
from backflip.settings import Sampling

BLOCK = 128


class Drawn(NamedTuple):
    """A token for each row and its log-probability in nats, (B,) each."""

    token_B: Tensor
    logp_B: Tensor


def is_whole(settings: Sampling) -> bool:
    """Whether what is sampled is the model's own softmax at `temperature`, so that scoring at that temperature gives the
    same probabilities."""
    return settings.top_k == 0 and settings.top_p == 1.0 and settings.min_p == 0.0 and settings.repetition_penalty == 1.0


def check_drawn(settings: Sampling, what: str) -> None:
    """Raise ConfigError for beam search where `what` needs completions that are drawn from the policy."""
    if settings.num_beams > 1:
        raise ConfigError(
            f"{what} needs completions drawn from the policy; beam search picks likely ones, and their log-probabilities do not "
            "say how often they are picked; set num_beams to 1"
        )


def repel(logits_BV: Tensor, seen_BV: Tensor, penalty: float) -> Tensor:
    """Logits of tokens already in the text divided by `penalty` where positive, multiplied where negative (CTRL, Keskar et
    al. 2019, section 4.1)."""
    return torch.where(seen_BV, torch.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty), logits_BV)


def truncate(logits_BV: Tensor, *, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> Tensor:
    """Logits with −∞ wherever top-k, nucleus (Holtzman et al. 2020) or min-p sampling (Nguyen et al. 2024) forbids the
    token, applied in this order.

    The nucleus is the smallest set of likeliest tokens whose probabilities sum to at least `top_p`; min-p keeps those at
    least `min_p` times as likely as the likeliest, which always stays. With top_k = 0, top_p = 1 and min_p = 0 the logits
    come back as they are.
    """
    if 0 < top_k < logits_BV.shape[-1]:
        kth = logits_BV.topk(top_k, dim=-1).values[..., -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < kth, -torch.inf)
    if top_p < 1.0:
        ordered, order = logits_BV.sort(dim=-1, descending=True, stable=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        outside = torch.zeros_like(logits_BV, dtype=torch.bool).scatter(-1, order, before >= top_p)
        logits_BV = logits_BV.masked_fill(outside, -torch.inf)
    if min_p > 0.0:
        best = logits_BV.amax(dim=-1, keepdim=True)
        logits_BV = logits_BV.masked_fill((logits_BV - best).exp() < min_p, -torch.inf)
    return logits_BV


def draw(logits_BV: Tensor, uniform_B: Tensor) -> Drawn:
    """One token a row from softmax(logits) by inverting its cumulative distribution at u ∈ [0, 1).

    A token of probability zero is never drawn: the search looks for the first cumulative sum strictly above u·total,
    which only tokens with a share of their own can be. The sum runs over blocks of the vocabulary first and inside the
    chosen block then, which reads a large vocabulary once instead of sorting or scanning it in double precision.
    """
    best_B = logits_BV.amax(dim=-1)
    share_BV = (logits_BV - best_B.unsqueeze(-1)).exp_()
    spare = -share_BV.shape[-1] % BLOCK
    share_BNW = (functional.pad(share_BV, (0, spare)) if spare else share_BV).view(len(share_BV), -1, BLOCK)
    ends_BN = share_BNW.sum(-1).double().cumsum(-1)
    total_B = ends_BN[:, -1]
    target_B = uniform_B.double() * total_B
    block_B = _first_above(ends_BN, target_B)
    rows_B = torch.arange(len(block_B), device=block_B.device)
    inner_BW = share_BNW[rows_B, block_B].double().cumsum(-1)
    rest_B = target_B - torch.where(block_B > 0, ends_BN[rows_B, (block_B - 1).clamp(min=0)], 0.0)
    # The block's sum in the vocabulary's precision may exceed the one inside it by a rounding: stay below the latter.
    rest_B = torch.minimum(rest_B, inner_BW[:, -1] * (1 - 2**-52)).clamp(min=0.0)
    token_B = (block_B * BLOCK + _first_above(inner_BW, rest_B)).clamp(max=logits_BV.shape[-1] - 1)
    logp_B = (logits_BV[rows_B, token_B] - best_B).double() - total_B.log()
    return Drawn(token_B, logp_B.to(logits_BV.dtype))


def _first_above(cumulative: Tensor, target_B: Tensor) -> Tensor:
    place_B = torch.searchsorted(cumulative, target_B.unsqueeze(-1), right=True).squeeze(-1)
    return place_B.clamp(max=cumulative.shape[-1] - 1)
