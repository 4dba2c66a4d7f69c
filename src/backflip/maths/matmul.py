"""Who multiplies float32 matrices on this CPU.

PyTorch hands float32 products to MKL, which on CPUs of other makers than Intel runs at under half of what they can do.
oneDNN, which comes with PyTorch as well, does the same products two to three times faster there. The public switch for it is
`torch.backends.mkldnn.matmul.fp32_precision`, whose name also allows a CPU to round to bfloat16; so before it is used both
are timed and compared with float64 for about 100 ms, and oneDNN is taken only where it is faster and as precise.

Small products and batched ones with a single row stay with the stock library, which starts quicker.

A step of decoding multiplies few rows by large matrices. Libraries that copy the matrix into an order of their own before
every product then spend most of the time on that, and x·Wᵀ takes up to three times as long as its transpose W·xᵀ, in which
the matrix stands on the left and is read as it lies. Whether that is so is measured too; where it is, few rows are kept
upright, (E, B) in memory behind a view of (B, E), through all of a decoding step.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import time
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

Choice = Literal["stock", "onednn"]

VARIABLE = "BACKFLIP_MATMUL"
"""Environment variable that takes the decisions away from measurement: "stock" or "onednn", and products lie."""

CACHE_VARIABLE = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
# Every shape of product has a compiled kernel of about a megabyte, and oneDNN keeps a thousand of them; we ask for fewer
# before it makes its first, unless somebody else has asked already.
os.environ.setdefault(CACHE_VARIABLE, "128")

SMALL = 2_000_000
"""Products of fewer multiplications are not worth the switch."""

GAIN = 1.25
"""How much faster oneDNN must be at every shape measured."""

PRECISE = 4.0
"""How many times the stock library's largest error may be exceeded; bfloat16 would exceed it ten thousand times."""

SHAPES = ((1024, 128, 384), (1024, 512, 512))

FEWEST = 5
"""Rows below which products lie: so few gain nothing by standing."""

WIDE = 256
"""Both sides of a matrix from which on products of few rows may stand."""

PIECE = 48
"""Rows that one upright product takes; of more the library copies the matrix after all, so they are made in two."""

PACKED_FOR = 64
"""Rows of the products that packed matrices are for; other numbers give the same."""

UPRIGHT_GAIN = 1.15
"""How much faster upright products must be."""

STEPS = ((16, PIECE), (40, PIECE), (64, 64))
"""Numbers of rows that are measured, and up to how many each speaks for."""


class Rates(NamedTuple):
    """What was measured: billions of floating-point operations per second, at the shape where oneDNN gains least, and the
    largest error relative to the largest entry."""

    stock_gflops: float
    onednn_gflops: float
    stock_error: float
    onednn_error: float

    @property
    def precise(self) -> bool:
        """Whether oneDNN's error is of the stock library's size."""
        return self.onednn_error <= PRECISE * self.stock_error


class _State:
    decided = False
    """Whether a block of `use` is open."""
    enabled = False
    """Whether it is one of `use("onednn")`."""
    fast = False
    """How the switch stands, as far as we turned it."""
    upright = 0
    """Up to how many rows are multiplied upright."""


def available() -> bool:
    """Whether this PyTorch has the switch."""
    backend = getattr(torch.backends, "mkldnn", None)
    return (
        backend is not None
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(getattr(backend, "matmul", None), "fp32_precision")
    )


def measure() -> Rates:
    """Time both libraries on this machine, and compare both with float64. Takes about 100 ms."""
    worst = Rates(1.0, 0.0, 0.0, float("inf"))
    if not available():
        return worst
    generator = torch.Generator().manual_seed(0)
    found = []
    for m, k, n in SHAPES:
        x, w = torch.randn(m, k, generator=generator), torch.randn(n, k, generator=generator)
        exact = x.double() @ w.double().T
        rates: dict[bool, tuple[float, float]] = {}
        for fast in (False, True):
            with _flag(fast):
                error = float(((x @ w.T) - exact).abs().max() / exact.abs().max())
                rates[fast] = 2 * m * k * n / shortest(lambda x=x, w=w: x @ w.T) / 1e9, error  # type: ignore[misc]
        found.append(Rates(rates[False][0], rates[True][0], rates[False][1], rates[True][1]))
    return min(found, key=lambda r: r.onednn_gflops / r.stock_gflops if r.precise else 0.0)


@torch.no_grad()
def upright_rows(choice: Choice) -> int:
    """Up to how many rows this library multiplies faster upright; 0 where it does not or the environment variable decides.

    Takes about 150 ms. The matrices measured are together larger than the caches of a core, as those of a model are.
    """
    if VARIABLE in os.environ:
        return 0
    weights = torch.ones(6, 640, 1728).unbind()
    most = 0
    with _flag(choice == "onednn"):
        for rows, up_to in STEPS:
            x = torch.ones(1728, rows).t()
            lying = x.contiguous()
            seconds = shortest(lambda x=lying: [functional.linear(x, w) for w in weights], times=3)  # type: ignore[misc]
            if seconds < UPRIGHT_GAIN * shortest(lambda x=x: [_upright(x, w, None) for w in weights], times=3):  # type: ignore[misc]
                return 0 if rows < PIECE else most
            most = up_to
    return most


def choose(rates: Rates) -> Choice:
    """The library these figures speak for, unless the environment variable says otherwise.

    Raises ValueError for a value of the variable that is neither.
    """
    forced = os.environ.get(VARIABLE)
    if forced is not None:
        if forced not in ("stock", "onednn"):
            raise ValueError(f"{VARIABLE} is 'stock' or 'onednn', not {forced!r}")
        return forced  # type: ignore[return-value]
    return "onednn" if rates.precise and rates.onednn_gflops >= GAIN * rates.stock_gflops else "stock"


@contextlib.contextmanager
def use(choice: Choice, *, upright: int = 0) -> Iterator[None]:
    """Float32 products inside the block are made by this library, those of up to `upright` rows upright; a block inside another
    has no say."""
    if _State.decided:
        yield
        return
    _State.decided, _State.enabled, _State.upright = True, choice == "onednn" and available(), upright
    try:
        with _flag(True) if _State.enabled else contextlib.nullcontext():
            yield
    finally:
        _State.decided, _State.enabled, _State.upright = False, False, 0


def decided() -> bool:
    """Whether a block of `use` is open."""
    return _State.decided


def enabled() -> bool:
    """Whether a block of `use("onednn")` is open."""
    return _State.enabled


@contextlib.contextmanager
def stock() -> Iterator[None]:
    """The stock library inside the block, whatever is in use around it."""
    with _flag(False) if _State.enabled else contextlib.nullcontext():
        yield


def switch(fast: bool) -> None:
    """Turn the switch itself, inside a block of `use("onednn")`; elsewhere do nothing."""
    if _State.enabled:
        _set(fast)


def stands(rows: int, width: int) -> bool:
    """Whether so many rows of numbers that nobody differentiates are multiplied upright by matrices of at least this width."""
    return FEWEST <= rows <= _State.upright and width >= WIDE and not torch.is_grad_enabled()


def erect(x: Tensor) -> Tensor:
    """The same (B, E) with its rows upright in memory."""
    return x.t().contiguous().t()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x·Wᵀ + b; inside `stock()` a large product is still made by the library in use. Of few rows the result stands upright
    where that is quicker (see `stands`)."""
    plain = x.dim() == 2 and x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu"
    if plain and stands(len(x), min(weight.shape)):
        with _flag(True) if _State.enabled and not _State.fast else contextlib.nullcontext():
            return _upright(x, weight, bias)
    if _State.enabled and not _State.fast and x.numel() * weight.shape[0] >= SMALL and x.dtype == torch.float32:
        with _flag(True):
            return functional.linear(x, weight, bias)
    return functional.linear(x, weight, bias)


def packed(weight: Tensor) -> Tensor | None:
    """A bfloat16 matrix in the order in which oneDNN reads it for few rows, for `packed_linear`; None where that cannot be done.

    Otherwise every product brings the matrix into that order first, which for few rows takes as long as the product.
    """
    if weight.dtype != torch.bfloat16 or weight.device.type != "cpu" or not _packs():
        return None
    reordered: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), PACKED_FOR)
    return reordered


def packed_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x·Wᵀ + b with a matrix that `packed` made: what the plain product gives, up to the order of its sums."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


@functools.cache
def _packs() -> bool:
    """Whether this PyTorch has the two operators, this CPU bfloat16, and both give what a plain product gives."""
    try:
        if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        x, w = torch.arange(64.0).view(2, 32).bfloat16(), torch.arange(512.0).sub(256).view(16, 32).bfloat16()
        found = packed_linear(x, torch.ops.mkldnn._reorder_linear_weight(w, PACKED_FOR), None)
        return bool(torch.equal(found, functional.linear(x, w)))
    except (AttributeError, RuntimeError):
        return False


def _upright(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if len(x) <= PIECE:
        out = weight @ x.t()
    else:
        out, width = x.new_empty(len(weight), len(x)), -(-len(x) // 32) * 16  # whole registers of sixteen numbers
        for piece in (slice(width), slice(width, len(x))):
            torch.mm(weight, x.t()[:, piece], out=out[:, piece])
    if bias is not None:
        out.add_(bias.unsqueeze(1))
    return out.t()


def tidy() -> None:
    """Give memory between oneDNN's kernels back to the system; call it now and then while training.

    Kernels live long and stand among tensors that come and go, so the C library's heap goes to pieces: without this a demo
    of 600 MB grew to 1.8 GB. Does nothing where the C library has no such call.
    """
    if _State.enabled:
        trim()


def trim() -> None:
    """Give the memory that measuring took back to the system, where the C library has a call for it."""
    if _TRIM is not None:
        _TRIM(0)


def _trim() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None


_TRIM = _trim()


def shortest(work: Callable[[], object], times: int = 8) -> float:
    """Seconds that the quickest of several runs of `work` took."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


@contextlib.contextmanager
def _flag(fast: bool) -> Iterator[None]:
    if not available():
        yield
        return
    before = torch.backends.mkldnn.matmul.fp32_precision, _State.fast  # type: ignore[attr-defined]
    _set(fast)
    try:
        yield
    finally:
        torch.backends.mkldnn.matmul.fp32_precision, _State.fast = before  # type: ignore[attr-defined]


def _set(fast: bool) -> None:
    torch.backends.mkldnn.matmul.fp32_precision = "bf16" if fast else "ieee"  # type: ignore[attr-defined]
    _State.fast = fast
