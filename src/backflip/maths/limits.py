"""What this CPU can do at most: products of large matrices by either library and in bfloat16, and reading memory.

`maths.roofline` says how much a job has to do; together they say how long it must take.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from backflip.maths import matmul


class Limits(NamedTuple):
    """Billions of floating-point operations a second in products of n × n matrices, and of bytes a second read in one long
    sum; 0 by a library that this PyTorch has no switch for."""

    stock_gflops: float
    onednn_gflops: float
    bf16_gflops: float
    read_gb_s: float

    @property
    def library(self) -> matmul.Choice:
        """The faster library for float32."""
        return "onednn" if self.onednn_gflops > self.stock_gflops else "stock"

    @property
    def fp32_gflops(self) -> float:
        """The rate of the faster library."""
        return max(self.stock_gflops, self.onednn_gflops)


def measure(*, size: int = 1024, megabytes: int = 128, seconds: float = 0.05) -> Limits:
    """The fastest of the runs that fit into `seconds` for each figure; takes about five times that."""
    x, y = torch.randn(2, size, size).unbind()
    with matmul.stock():
        stock = product_rate(x, y, seconds=seconds)
    onednn = 0.0
    if matmul.available():
        with matmul.use("onednn"):
            onednn = product_rate(x, y, seconds=seconds)
    half = product_rate(x.bfloat16(), y.bfloat16(), seconds=seconds)
    return Limits(stock, onednn, half, read_rate(torch.zeros(megabytes * 250_000), seconds=seconds))


def product_rate(x: torch.Tensor, y: torch.Tensor, *, seconds: float, sustained: bool = False) -> float:
    """10⁹ operations a second of x·y, (m, k) and (k, n)."""
    return rate(lambda: x @ y, 2 * x.shape[0] * x.shape[1] * y.shape[1], seconds=seconds, sustained=sustained)


def read_rate(buffer: torch.Tensor, *, seconds: float, sustained: bool = False) -> float:
    """10⁹ bytes a second of summing `buffer`, which should be larger than any cache."""
    return rate(buffer.sum, buffer.nbytes, seconds=seconds, sustained=sustained)


def rate(work: Callable[[], object], amount: float, *, seconds: float, sustained: bool) -> float:
    """10⁹ units a second, `amount` of them in one call of `work`: the mean over `seconds`, or the best call in them.

    One uncounted call comes first, for what is compiled or touched only once.
    """
    work()
    begin = last = time.perf_counter()
    calls, quickest = 0, float("inf")
    while calls == 0 or last - begin < seconds:
        work()
        now = time.perf_counter()
        quickest, last, calls = min(quickest, now - last), now, calls + 1
    return amount / ((last - begin) / calls if sustained else quickest) / 1e9
