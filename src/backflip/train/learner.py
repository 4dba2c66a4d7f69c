"""Loss → update: micro-batches, one gradient, one guarded step.

A loss function is called on slices of the step's rows and must already be divided by the whole step's denominator, so
the gradients of the slices add up to the gradient of the step whatever the slicing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from backflip.errors import NumericsError
from backflip.maths import matmul
from backflip.settings import Optim
from backflip.train.optim import AdamW, learning_rate

TIDY_EVERY = 25
"""Updates between two occasions to give memory back."""


class Update(NamedTuple):
    """What one update did: the step's loss, the gradient's norm before clipping, the step size."""

    loss: float
    grad_norm: float
    learning_rate: float


class Learner:
    """Owns the optimizer of a set of named parameters and makes updates with it."""

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]], settings: Optim, *, total: int) -> None:
        self.settings = settings
        self.total = total
        beta1, beta2 = settings.adam_betas
        self.optimizer = AdamW(
            parameters,
            betas=(beta1, beta2),
            eps=settings.adam_eps,
            eps_convention=settings.adam_eps_convention,
            weight_decay=settings.weight_decay,
        )

    def update(self, rows: Sequence[Any], loss_of: Callable[[Sequence[Any]], Tensor]) -> Update:
        """One optimizer step on `rows`, `micro_batch_size` of them a forward pass.

        `loss_of(some_rows)` returns their share of the step's loss. Raises NumericsError, the weights untouched, when the
        loss or the gradient is not finite.
        """
        self.optimizer.zero_grad()
        total = 0.0
        size = self.settings.micro_batch_size
        for start in range(0, len(rows), size):
            loss = loss_of(rows[start : start + size])
            if not math.isfinite(loss.item()):
                raise NumericsError(
                    f"the loss of update {self.optimizer.t + 1} is {loss.item()}, so nothing was changed; "
                    "lower learning_rate, or look for bad rows in the data"
                )
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        norm = self._clip()
        rate = learning_rate(self.settings, self.optimizer.t, self.total)
        self.optimizer.step(rate)
        if self.optimizer.t % TIDY_EVERY == 0:
            matmul.tidy()
        return Update(total, norm, rate)

    def _clip(self) -> float:
        grads = [p.grad for p in self.optimizer.parameters.values() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads)
        if not torch.isfinite(norm):
            raise NumericsError(
                f"the gradient of update {self.optimizer.t + 1} is not finite, so nothing was changed; "
                "lower learning_rate or set max_grad_norm"
            )
        if self.settings.max_grad_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.optimizer.parameters.values(), self.settings.max_grad_norm, norm)
        return float(norm)

    def save(self, path: Path) -> None:
        """Write the optimizer's state as safetensors."""
        save_file(self.optimizer.state(), path)

    def load(self, path: Path) -> None:
        """Take up the state written by `save`."""
        self.optimizer.load(load_file(path))
