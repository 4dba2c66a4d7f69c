"""From logits to tokens: the distribution that is sampled, and the draw.

Legend: B rows, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor


def truncate(logits_BV: Tensor, *, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Logits with −∞ wherever top-k or nucleus sampling (Holtzman et al. 2020) forbids the token.

    The nucleus is the smallest set of likeliest tokens whose probabilities sum to at least `top_p`; the likeliest
    token always stays. With top_k = 0 and top_p = 1 the logits come back as they are.
    """
    if 0 < top_k < logits_BV.shape[-1]:
        kth = logits_BV.topk(top_k, dim=-1).values[..., -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < kth, -torch.inf)
    if top_p < 1.0:
        ordered, order = logits_BV.sort(dim=-1, descending=True, stable=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        outside = torch.zeros_like(logits_BV, dtype=torch.bool).scatter(-1, order, before >= top_p)
        logits_BV = logits_BV.masked_fill(outside, -torch.inf)
    return logits_BV


def draw(logps_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """One token a row by inverting the cumulative distribution at u ∈ [0, 1): (B,) ids.

    A token of probability zero is never drawn: the search looks for the first cumulative sum strictly above u·total,
    which only tokens with a share of their own can be.
    """
    cumulative = logps_BV.double().exp().cumsum(-1)
    target = uniform_B.double().unsqueeze(-1) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True).squeeze(-1).clamp(max=logps_BV.shape[-1] - 1)
