"""Loss → update: micro-batches, one gradient, one guarded step.

A loss function is called on slices of the step's rows and must already be divided by the whole step's denominator, so
the gradients of the slices add up to the gradient of the step whatever the slicing. A slice that does not fit into memory
is therefore simply cut in two.
"""

from __future__ import annotations

import contextlib
import gc
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from backflip.errors import NonFiniteError
from backflip.maths import matmul
from backflip.settings import Optim
from backflip.train.optim import AdamW, learning_rate

TIDY_EVERY = 25
"""Updates between two occasions to give memory back."""


class Share(NamedTuple):
    """What a slice of the rows contributes: its share of the step's loss, a scalar, and what the loop wants to know of it."""

    loss: Tensor
    note: Any = None


class Update(NamedTuple):
    """What one update did: the step's loss, the gradient's norm before clipping, the step size, and the slices' notes."""

    loss: float
    grad_norm: float
    learning_rate: float
    notes: list[Any]


class Learner:
    """Owns the optimizer of a set of named parameters and makes updates with it.

    `say` is told, once each time, when memory runs out and smaller slices are taken from then on.
    """

    def __init__(
        self, parameters: Iterable[tuple[str, nn.Parameter]], settings: Optim, *, total: int,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self.settings = settings
        self.total = total
        self.say = say
        self.halvings = 0
        beta1, beta2 = settings.adam_betas
        self.optimizer = AdamW(
            parameters,
            betas=(beta1, beta2),
            eps=settings.adam_eps,
            eps_convention=settings.adam_eps_convention,
            weight_decay=settings.weight_decay,
        )

    @contextlib.contextmanager
    def arithmetic(self) -> Iterator[None]:
        """The precision of forward passes: the weights' own, or matrix products in bfloat16 beside weights, norms, softmax
        and losses in float32 (automatic mixed precision, Micikevicius et al. 2018)."""
        device = next(iter(self.optimizer.parameters.values())).device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.settings.precision == "bfloat16"):
            yield

    def update(
        self, rows: Sequence[Any], loss_of: Callable[[Sequence[Any]], Share], *, tokens: Sequence[int] | None = None
    ) -> Update:
        """One optimizer step on `rows`, sliced into micro-batches by the settings; `tokens` counts those of each row.

        `loss_of(some_rows)` returns their share of the step's loss. Raises NonFiniteError, the weights untouched, when the
        loss or the gradient is not finite, and whatever the machine raises when not even one row fits into memory.
        """
        while True:
            slices = self.slices(len(rows), tokens)
            try:
                loss, notes = self._gradient([rows[part] for part in slices], loss_of)
                break
            except (RuntimeError, MemoryError) as problem:
                widest = max(part.stop - part.start for part in slices)
                if not out_of_memory(problem) or widest == 1:
                    raise
                self.halvings += 1
            # Outside the handler: the traceback holds on to the tensors that did not fit.
            gc.collect()
            torch.cuda.empty_cache()
            self.say(f"out of memory with {widest} rows at a time; going on with half as many (the gradient stays the same)")
        norm = self._clip()
        rate = learning_rate(self.settings, self.optimizer.t, self.total)
        self.optimizer.step(rate)
        if self.optimizer.t % TIDY_EVERY == 0:
            matmul.tidy()
        return Update(loss, norm, rate, notes)

    def slices(self, n: int, tokens: Sequence[int] | None = None) -> list[slice]:
        """Consecutive slices of `n` rows, as long as the row limit and the token budget allow, one row at least."""
        limit = max(1, self.settings.micro_batch_size >> self.halvings)
        budget = self.settings.micro_batch_tokens
        if tokens is None or budget is None:
            return [slice(i, min(i + limit, n)) for i in range(0, n, limit)]
        found, begin, load = [], 0, 0
        for i, more in enumerate(tokens):
            if i > begin and (i - begin == limit or load + more > budget >> self.halvings):
                found.append(slice(begin, i))
                begin, load = i, 0
            load += more
        return [*found, slice(begin, n)]

    def _gradient(self, parts: Sequence[Sequence[Any]], loss_of: Callable[[Sequence[Any]], Share]) -> tuple[float, list[Any]]:
        """The gradient of all parts, left in the parameters; their loss and their notes."""
        self.optimizer.zero_grad()
        total, notes = 0.0, []
        for part in parts:
            with self.arithmetic():
                loss, note = loss_of(part)
            value = loss.item()
            if not math.isfinite(value):
                raise NonFiniteError(
                    f"the loss of update {self.optimizer.t + 1} is {value}, so nothing was changed; "
                    "lower learning_rate, or look for bad rows in the data"
                )
            loss.backward()  # type: ignore[no-untyped-call]
            total += value
            notes.append(note)
        return total, notes

    def _clip(self) -> float:
        grads = [p.grad for p in self.optimizer.parameters.values() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads)
        if not torch.isfinite(norm):
            raise NonFiniteError(
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


def out_of_memory(problem: BaseException) -> bool:
    """Whether this is how PyTorch, on a CPU or a GPU, or Python says that memory is used up."""
    return isinstance(problem, torch.OutOfMemoryError | MemoryError) or "not enough memory" in str(problem)
