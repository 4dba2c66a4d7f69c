"""Truth values as single bits.

Legend: V values, S bytes for them, ... any leading shape.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad


def packed(values: Tensor) -> Tensor:
    """Truth values (..., V) as bytes (..., S), the first value in the lowest bit."""
    wide = pad(values, (0, -values.shape[-1] % 8))
    eights = wide.view(*wide.shape[:-1], -1, 8).to(torch.uint8)
    return torch.sum(eights << _places(values.device), -1, dtype=torch.uint8)


def unpacked(bits: Tensor, n: int) -> Tensor:
    """The `n` truth values (..., V) that `packed` made bytes of.

    >>> unpacked(packed(torch.tensor([True, False, True])), 3).tolist()
    [True, False, True]
    """
    return ((bits.unsqueeze(-1) >> _places(bits.device)) & 1).flatten(-2)[..., :n].bool()


def counted(bits: Tensor) -> Tensor:
    """How many of the values in (..., S) bytes are true, (...,).

    >>> counted(packed(torch.tensor([[True, False, True]]))).tolist()
    [2]
    """
    pairs = bits - ((bits >> 1) & 0x55)
    fours = (pairs & 0x33) + ((pairs >> 2) & 0x33)
    return ((fours + (fours >> 4)) & 0x0F).sum(-1)


def _places(device: torch.device) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=device)
