"""Truth values as bits come back as they were, and are counted."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from backflip.maths.bits import counted, packed, unpacked


@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 10**6))
def test_there_and_back(n: int, rows: int, seed: int) -> None:
    values = torch.rand(rows, 3, n, generator=torch.Generator().manual_seed(seed)) < 0.5
    bits = packed(values)
    assert bits.shape == (rows, 3, -(-n // 8))
    assert bits.dtype == torch.uint8
    assert torch.equal(unpacked(bits, n), values)
    assert torch.equal(counted(bits), values.sum(-1))


def test_the_first_value_is_the_lowest_bit() -> None:
    assert packed(torch.tensor([True, False, True] + [False] * 6 + [True])).tolist() == [5, 2]
