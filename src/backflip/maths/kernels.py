"""The elementwise steps of a Llama layer with their gradients written out: fewer passes over memory than autograd would make.

And the log-probabilities of given tokens straight from hidden states, which never holds the logits of all positions at once.

Legend: ... any leading shape, E hidden size, F feed-forward size, H heads, D head size, W positions, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        scale = torch.rsqrt(torch.linalg.vecdot(wide, wide).unsqueeze(-1) / x.shape[-1] + eps)
        unit = wide * scale
        ctx.save_for_backward(unit, weight, scale)
        ctx.dtype = x.dtype
        return (unit.to(x.dtype) * weight).to(dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        unit, weight, scale = ctx.saved_tensors
        wide = grad.to(unit.dtype)
        grad_weight = (wide * unit).flatten(0, -2).sum(0).to(weight.dtype) if ctx.needs_input_grad[1] else None
        grad_unit = wide * weight
        along = torch.linalg.vecdot(grad_unit, unit).unsqueeze(-1) / unit.shape[-1]
        return torch.addcmul(grad_unit, unit, along, value=-1).mul_(scale).to(ctx.dtype), grad_weight, None, None


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        share = torch.sigmoid(gate)
        active = gate * share
        # silu' = σ + silu·(1 − σ)
        slope = torch.addcmul(share, active, 1 - share).mul_(up).mul_(grad)
        return slope, active.mul_(grad)


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin, 1.0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn(grad, cos, sin, -1.0), None, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor, sign: float) -> Tensor:
    low, high = x.chunk(2, dim=-1)
    low_sin, high_sin = sin.chunk(2, dim=-1)
    turned = x * cos
    turned_low, turned_high = turned.chunk(2, dim=-1)
    turned_low.addcmul_(high, low_sin, value=-sign)
    turned_high.addcmul_(low, high_sin, value=sign)
    return turned.to(x.dtype)


CHUNK = 4_000_000
"""Logits held at a time, where more than a chunk of them is asked for."""


class _TokenLogps(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, tokens: Tensor, temperature: float, chunk: int, want_entropy: bool
    ) -> tuple[Tensor, Tensor | None]:
        size = max(1, chunk // weight.shape[0])
        whole = len(x) <= size
        narrow = weight.to(x.dtype)
        logps, entropies, chances = [], [], x.new_empty(0)
        for begin in range(0, max(1, len(x)), size):
            logits = functional.linear(x[begin : begin + size], narrow).to(weight.dtype).div_(temperature)
            norm = logits.logsumexp(-1, keepdim=True)
            logps.append(logits.gather(-1, tokens[begin : begin + size].unsqueeze(-1)).sub_(norm).squeeze(-1))
            if want_entropy or whole:
                part = torch.sub(logits, norm).exp_()
            if want_entropy:
                entropies.append(norm.squeeze(-1) - torch.linalg.vecdot(part, logits))
            if whole:
                chances = part
        entropy = torch.cat(entropies) if want_entropy else None
        ctx.temperature, ctx.size = temperature, size
        ctx.save_for_backward(x, weight, tokens, chances)
        ctx.set_materialize_grads(False)  # an output that no loss was made of asks for no work
        return torch.cat(logps), entropy

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor | None, grad_entropy: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:
        if grad is None and grad_entropy is None:
            return None, None, None, None, None, None
        x, weight, tokens, chances = ctx.saved_tensors
        wanted = ctx.needs_input_grad[1]
        narrow = weight.to(x.dtype)
        grad_x, grad_weight = torch.empty_like(x), torch.zeros_like(weight) if wanted else None
        for begin in range(0, len(x), ctx.size):
            span = slice(begin, begin + ctx.size)
            part = chances
            if not len(chances):  # computed again: a product less than was saved in memory
                part = functional.linear(x[span], narrow).to(weight.dtype).div_(ctx.temperature).softmax(-1)
            if grad is None:
                slope = torch.zeros_like(part)
            else:
                given = (grad[span] / ctx.temperature).unsqueeze(-1)
                slope = part * -given
                slope.scatter_add_(-1, tokens[span].unsqueeze(-1), given)
            if grad_entropy is not None:  # ∂H/∂z_v = −p_v (log p_v + H)
                surprise = torch.xlogy(part, part)
                surprise.addcmul_(part, surprise.sum(-1, keepdim=True), value=-1.0)
                slope.addcmul_(surprise, (grad_entropy[span] / ctx.temperature).unsqueeze(-1), value=-1.0)
            slope = slope.to(x.dtype)
            grad_x[span] = slope @ narrow
            if grad_weight is not None and narrow is weight:
                grad_weight.addmm_(slope.T, x[span])
            elif grad_weight is not None:  # the chunks' gradients are added up in the weights' own precision
                grad_weight.add_(slope.T @ x[span])
        return grad_x, grad_weight, None, None, None, None


def head_logps(
    x: Tensor, weight: Tensor, tokens: Tensor, *, temperature: float = 1.0, chunk: int = CHUNK, entropy: bool = True,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """log p(token) in nats under softmax(x·Wᵀ/temperature), and that distribution's entropy where asked for, (W,) each.

    `x` is (W, E), `weight` (V, E), `tokens` (W,). Differentiable in `x` and `weight` through both. At most `chunk`
    logits are held at a time; the backward pass computes those of more than a chunk again. Products are made in `dtype` where
    one is given; everything after them is of the weight's type.
    """
    if not temperature > 0.0:
        raise ValueError(f"temperature must be above 0, not {temperature}")
    x = x.to(dtype or weight.dtype)
    logps, entropies = _TokenLogps.apply(x, weight, tokens, temperature, chunk, entropy)  # type: ignore[no-untyped-call]
    return logps, entropies


def rms_norm(x: Tensor, weight: Tensor, eps: float, *, dtype: torch.dtype | None = None) -> Tensor:
    """weight · x / √(mean(x²) + ε) over the last dimension, the statistics in float32 at least (Zhang & Sennrich 2019).

    The result is of `x`'s type, or of `dtype`.
    """
    dtype = dtype or x.dtype
    if x.is_cuda:  # where it is one kernel each way
        return functional.rms_norm(x, x.shape[-1:], weight, eps).to(dtype)
    if not torch.is_grad_enabled() and x.dtype in (torch.float32, torch.float64):
        # Rows that stand upright (see `matmul`) stay so.
        scale = x.square().sum(-1, keepdim=True).div_(x.shape[-1]).add_(eps).rsqrt_()
        return (x * scale).mul_(weight).to(dtype)
    normed: Tensor = _RMSNorm.apply(x, weight, eps, dtype)  # type: ignore[no-untyped-call]
    return normed


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) · up, (..., F) each (Shazeer 2020)."""
    if not torch.is_grad_enabled():
        return functional.silu(gate).mul_(up)
    mixed: Tensor = _SwiGLU.apply(gate, up)  # type: ignore[no-untyped-call]
    return mixed


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding of (..., H, D), the halves of the last dimension taken as pairs (Su et al. 2021).

    `cos` and `sin` broadcast to `x`; both halves of each are equal.
    """
    if not torch.is_grad_enabled():
        return _turn(x, cos, sin, 1.0)
    turned: Tensor = _Rotate.apply(x, cos, sin)  # type: ignore[no-untyped-call]
    return turned
