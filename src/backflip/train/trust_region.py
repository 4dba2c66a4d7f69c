"""TRPO's step: along the natural gradient, as far as the trust region goes and no further than it helps.

Schulman et al. 2015 (1502.05477), App. C: x ≈ F⁻¹g by conjugate gradients, the step √(2δ / xᵀFx)·x, halved until the surrogate
falls and the KL is within δ. F is the Fisher matrix of the sampled tokens, F = mean_t ∇log π_t ∇log π_tᵀ. Its product with a
vector needs no second derivative: (∇log π_t)ᵀv is a central difference of log-probabilities, and F·v the gradient of
mean_t log π_t weighted by it, so that any model that gives log-probabilities will do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from backflip.errors import NonFiniteError
from backflip.maths.tensors import keep

Part = Any
"""Whatever names some rows of the batch."""
HALVINGS = 10


class TrustStep(NamedTuple):
    """What a step did: the norm of the surrogate's gradient, the KL to the old policy in nats per token, by how much the
    surrogate fell, and the share of the full step that was taken (0: none helped)."""

    grad_norm: float
    kl: float
    improvement: float
    taken: float


class Surroundings(NamedTuple):
    """What the step asks about the present weights, for one part of the batch at a time: log π of its tokens, (b, T) and
    differentiable; its share of the surrogate loss; and the mask of its tokens."""

    logps: Callable[[Part], Tensor]
    loss: Callable[[Part, Tensor], Tensor]
    mask: Callable[[Part], Tensor]


def trust_region_step(
    parameters: Sequence[nn.Parameter],
    parts: Sequence[Part],
    about: Surroundings,
    *,
    max_kl: float,
    iterations: int,
    damping: float,
) -> TrustStep:
    """Change `parameters` by one step within `max_kl` nats per token; they stay as they are when no step helps.

    Raises NonFiniteError, the weights untouched, when the gradient is not finite.
    """
    n_tokens = sum(int(about.mask(part).sum()) for part in parts)
    if not n_tokens:
        return TrustStep(0.0, 0.0, 0.0, 0.0)
    start = _flat(parameters)
    with torch.no_grad():
        old = [about.logps(part) for part in parts]
        before = sum(float(about.loss(part, logps)) for part, logps in zip(parts, old, strict=True))

    def surrogate(part: Part) -> Tensor:
        return about.loss(part, about.logps(part))

    def weighted(part: Part, weight: Tensor) -> Tensor:
        return keep(weight * about.logps(part), about.mask(part)).sum()

    downhill = -_gradient(parameters, (partial(surrogate, part) for part in parts))
    norm = float(downhill.norm())
    if not torch.isfinite(downhill).all():
        raise NonFiniteError("the gradient of the trust-region step is not finite, so nothing was changed")
    if norm == 0.0:
        return TrustStep(0.0, 0.0, 0.0, 0.0)

    def curved(direction: Tensor) -> Tensor:
        """(F + damping) · direction."""
        reach = torch.finfo(start.dtype).eps ** (1 / 3) * max(1.0, float(start.norm())) / float(direction.norm())
        with torch.no_grad():
            _set(parameters, start + reach * direction)
            ahead = [about.logps(part) for part in parts]
            _set(parameters, start - reach * direction)
            behind = [about.logps(part) for part in parts]
            _set(parameters, start)
        weights = [(a - b) / (2 * reach * n_tokens) for a, b in zip(ahead, behind, strict=True)]
        losses = (partial(weighted, part, weight) for part, weight in zip(parts, weights, strict=True))
        return _gradient(parameters, losses) + damping * direction

    step = conjugate_gradients(curved, downhill, iterations)
    length = float(step @ curved(step))
    full = step * (2 * max_kl / length) ** 0.5 if length > 0 else torch.zeros_like(step)
    for halving in range(HALVINGS):
        share = 0.5**halving
        with torch.no_grad():
            _set(parameters, start + share * full)
            new = [about.logps(part) for part in parts]
            improvement = before - sum(float(about.loss(part, logps)) for part, logps in zip(parts, new, strict=True))
            ratios = (keep(n - o, about.mask(part)) for part, o, n in zip(parts, old, new, strict=True))
            kl = sum(float((torch.expm1(r) - r).sum()) for r in ratios) / n_tokens  # k3, of tokens the old policy drew
        if improvement > 0 and kl <= max_kl:
            return TrustStep(norm, kl, improvement, share)
    _set(parameters, start)
    return TrustStep(norm, 0.0, 0.0, 0.0)


def conjugate_gradients(
    product: Callable[[Tensor], Tensor], target: Tensor, iterations: int, *, tolerance: float = 1e-10
) -> Tensor:
    """x with A·x ≈ target for a symmetric positive definite A, given as `product` (Hestenes & Stiefel 1952)."""
    x = torch.zeros_like(target)
    residual, direction = target.clone(), target.clone()
    square = residual @ residual
    first = float(square)
    for _ in range(iterations):
        if float(square) <= tolerance * first:
            break
        image = product(direction)
        curvature = direction @ image
        if not float(curvature) > 0:  # rounding has the last word: what was found so far is a descent direction
            break
        x += square / curvature * direction
        residual -= square / curvature * image
        next_square = residual @ residual
        direction = residual + next_square / square * direction
        square = next_square
    return x


def _gradient(parameters: Sequence[nn.Parameter], losses: Iterable[Callable[[], Tensor]]) -> Tensor:
    for parameter in parameters:
        parameter.grad = None
    for loss in losses:
        loss().backward()  # type: ignore[no-untyped-call]
    found = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in parameters])
    for parameter in parameters:
        parameter.grad = None
    return found


def _flat(parameters: Sequence[nn.Parameter]) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in parameters])


def _set(parameters: Sequence[nn.Parameter], values: Tensor) -> None:
    with torch.no_grad():
        for parameter, part in zip(parameters, torch.split(values, [p.numel() for p in parameters]), strict=True):
            parameter.copy_(part.view_as(parameter))
