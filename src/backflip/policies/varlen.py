"""Attention of a line of tokens on a GPU: every row attends to its own span of keys, no rectangle in between.

    line      p p p p | a a a | b b | …                                       queries, row by row
    keys      p p p p | p p p p a a a | p p p p b b | …                       keys and values, gathered for rows that share
    begin_q   0         4       7     9
    begin_k   0         4             11            17

The last query of a row sees the last key of its span, the one before it all but the last, and so on ("bottom-right" causal).
In half precision that is one call of flash attention. In full precision, for which there is none, and where it does not do
what is written here, the rows are laid out in a rectangle for the fused kernel that takes a mask.

Legend: N tokens in a line, S key places, R rows, H heads, K key-value heads, D head size.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from backflip.policies.transfer import send

HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Spans:
    """Where each row's queries and keys begin, (R + 1,) each, int32; the longest of both; and which token of the line stands in
    each of the S key places (None: the line itself)."""

    begin_q: Tensor
    begin_k: Tensor
    longest_q: int
    longest_k: int
    key_tokens: Tensor | None

    @classmethod
    def of(cls, prompts: Sequence[int], owner: Sequence[int], responses: Sequence[int], n: int, device: torch.device) -> Spans:
        """Of prompts and then responses, which see the prompt `owner` names and themselves, in a line of `n` tokens; both by
        their lengths. What stands after them in the line is a row of its own, for every token has to attend to something."""
        begin = _begins([*prompts, *responses])
        rest = [n - begin[-1]] * (n > begin[-1])
        asking = [*prompts, *responses, *rest]
        seen = [*prompts, *(prompts[p] + length for p, length in zip(owner, responses, strict=True)), *rest]
        places = None
        if responses:
            pieces = [torch.arange(begin[len(prompts)])]
            for p, r in zip(owner, range(len(prompts), len(begin) - 1), strict=True):
                pieces += [torch.arange(begin[p], begin[p + 1]), torch.arange(begin[r], begin[r + 1])]
            places = send(torch.cat([*pieces, torch.arange(begin[-1], n)]), device)
        begin_q, begin_k = (send(torch.tensor(_begins(x), dtype=torch.int32), device) for x in (asking, seen))
        return cls(begin_q, begin_k, max(asking), max(seen), places)


def _begins(lengths: Sequence[int]) -> list[int]:
    begins = [0]
    for length in lengths:
        begins.append(begins[-1] + length)
    return begins


def wanted(device: torch.device) -> bool:
    """Whether lines on this device attend in spans."""
    return device.type == "cuda"


def attend(q: Tensor, k: Tensor, v: Tensor, spans: Spans, dtype: torch.dtype) -> Tensor:
    """Causal softmax attention of a line in its spans, computed in `dtype`: (N, H, D), (N, K, D), (N, K, D) → (N, H·D) of q's
    type, differentiable."""
    asking, keys, values = (t.to(dtype) for t in (q, k, v))
    keys, values = (_gathered(t, spans.key_tokens) for t in (keys, values))
    flash = dtype in HALF and flash_serves(q.device, dtype, q.shape[1], k.shape[1], q.shape[2])
    attention = by_flash if flash else by_rectangle
    attended = attention(asking, keys, values, spans.begin_q, spans.begin_k, spans.longest_q, spans.longest_k)
    return attended.flatten(1).to(q.dtype)


class _Gather(torch.autograd.Function):
    """Rows of `x` by index; what comes back to a row used often is added up in float32 at least."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.shape = x.shape
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        wide = grad.to(torch.promote_types(grad.dtype, torch.float32))
        return wide.new_zeros(ctx.shape).index_add_(0, index, wide).to(grad.dtype), None


def _gathered(x: Tensor, index: Tensor | None) -> Tensor:
    if index is None:
        return x
    gathered: Tensor = _Gather.apply(x, index)  # type: ignore[no-untyped-call]
    return gathered


def by_flash(q: Tensor, k: Tensor, v: Tensor, begin_q: Tensor, begin_k: Tensor, longest_q: int, longest_k: int) -> Tensor:
    """(N, H, D) from queries (N, H, D), keys and values (S, K, D) by PyTorch's flash attention for rows of many lengths."""
    from torch.nn.attention.varlen import varlen_attn

    # Versions that do not know the word share key heads unasked.
    shared: dict[str, Any] = {"enable_gqa": True} if q.shape[1] != k.shape[1] and _asks_for_sharing() else {}
    attended = varlen_attn(q, k, v, begin_q, begin_k, longest_q, longest_k, window_size=(-1, 0), **shared)
    assert isinstance(attended, Tensor)
    return attended


@functools.cache
def _asks_for_sharing() -> bool:
    from torch.nn.attention.varlen import varlen_attn

    return "enable_gqa" in inspect.signature(varlen_attn).parameters


def by_rectangle(q: Tensor, k: Tensor, v: Tensor, begin_q: Tensor, begin_k: Tensor, longest_q: int, longest_k: int) -> Tensor:
    """The same in a rectangle of R rows, on any device and in any precision."""
    heads, rows = q.shape[1], len(begin_q) - 1
    place_q, laid_q = _laid(q, begin_q, longest_q)
    # What takes a mask wants as many key heads as query heads.
    laid_k, laid_v = (_laid(t, begin_k, longest_k)[1].repeat_interleave(heads // t.shape[1], dim=1) for t in (k, v))
    query_L, key_S = (torch.arange(n, device=q.device) for n in (longest_q, longest_k))
    last_R = begin_k.diff() - begin_q.diff()
    # A place nobody stands in sees something too: a softmax over nothing would be NaN.
    seen_RLS = key_S <= query_L.unsqueeze(1) + last_R.view(-1, 1, 1)
    attended = scaled_dot_product_attention(laid_q, laid_k, laid_v, attn_mask=seen_RLS.unsqueeze(1))
    return attended.transpose(1, 2).reshape(rows * longest_q, heads, -1).index_select(0, place_q)


def _laid(x: Tensor, begin: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """The place of each token in a rectangle of (R · longest), and the rectangle, (R, heads, longest, D), zero elsewhere."""
    rows = len(begin) - 1
    row = torch.repeat_interleave(torch.arange(rows, device=x.device), begin.diff(), output_size=len(x))
    place = row * longest + torch.arange(len(x), device=x.device) - begin[row]
    laid = x.new_zeros(rows * longest, *x.shape[1:]).index_copy(0, place, x)
    return place, laid.view(rows, longest, *x.shape[1:]).transpose(1, 2)


@functools.cache
def flash_serves(device: torch.device, dtype: torch.dtype, heads: int, kv_heads: int, size: int) -> bool:
    """Whether there is a flash attention on this device that does what is written here; tried once for each size of head."""
    return device.type == "cuda" and agree(device, dtype, heads, kv_heads, size)


def agree(device: torch.device, dtype: torch.dtype, heads: int, kv_heads: int, size: int) -> bool:
    """Whether `by_flash` gives the values and gradients of `by_rectangle` on a few tokens: versions of PyTorch and of GPUs
    differ in whether there is one, in the sizes it takes and in how it aligns keys with queries."""
    generator = torch.Generator()
    spans = Spans.of([5, 3], [0, 0, 1], [2, 1, 4], 16, device)
    results = []
    for attention, precision in ((by_rectangle, torch.float32), (by_flash, dtype)):
        generator.manual_seed(0)
        line = [torch.randn(16, n, size, generator=generator).to(dtype) for n in (heads, kv_heads, kv_heads)]
        given = torch.randn(16, heads, size, generator=generator).to(device)
        leaves = [t.to(device, precision).requires_grad_() for t in line]
        try:
            with torch.enable_grad():
                keys, values = (_gathered(t, spans.key_tokens) for t in leaves[1:])
                out = attention(leaves[0], keys, values, spans.begin_q, spans.begin_k, spans.longest_q, spans.longest_k)
                results.append([out.detach(), *torch.autograd.grad((out.float() * given).sum(), leaves)])
        except (ImportError, TypeError, RuntimeError, ValueError, NotImplementedError):
            return False
    close = (torch.allclose(a, b.float(), rtol=0.05, atol=0.05 * float(a.abs().max())) for a, b in zip(*results, strict=True))
    return all(close)
