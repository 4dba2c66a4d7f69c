"""What the engine for GPUs keeps between rollouts of one model: the tables its graphs were recorded on, and the graphs.

A graph knows addresses, not tensors. Weights that are updated in place, as our optimizer does, stay where they are, and the
next replay reads the new values. Whatever else happens to a model (moved to another device, given an adapter, an adapter
switched off) is noticed before a rollout, and everything is made anew. Where products are made in another precision than the
model's own, the copies of its matrices are refreshed in place before every rollout.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from backflip.policies.llama import LlamaForward
from backflip.rollout.draws import Draws
from backflip.rollout.fixed import Desk, Need, Rollouts

DESKS = 2
"""Ways of sampling that a model keeps a desk for: those of training, say, and of evaluation."""

SHARE = 0.125
"""Part of a GPU's memory that the desks of one model may hold while nobody samples."""


@torch.no_grad()
def run(model: nn.Module, queries: Sequence[Sequence[int]], draws: Draws, *, dtype: torch.dtype | None) -> None:
    """Complete every query with a model of the Llama family, in `dtype` or its own; what is drawn ends up in `draws`."""
    device = next(model.parameters()).device
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        kept = Kept.of(model, dtype)
        try:
            Rollouts(kept.desk(draws, Need.of(queries, draws), device), queries).go(draws)
        except BaseException:
            kept.desks.clear()  # so that after running out of memory there is some
            raise
        kept.tidy(_allowed(device))


class Kept:
    """The desks of one model, the one used last at the end, and the forward pass they run."""

    def __init__(self, model: nn.Module, dtype: torch.dtype | None, mark: object) -> None:
        self.mark = mark
        self.forward = LlamaForward(model, dtype=dtype, frozen=True)
        self.desks: list[Desk] = []

    @classmethod
    def of(cls, model: nn.Module, dtype: torch.dtype | None) -> Kept:
        """What there is of this model, with its present weights."""
        mark = _mark(model, dtype)
        kept = _KEPT.get(model)
        if kept is None or kept.mark != mark:
            _KEPT.pop(model, None)
            kept = _KEPT[model] = cls(model, dtype, mark)
        else:
            kept.forward.refresh()
        return kept

    def desk(self, draws: Draws, need: Need, device: torch.device) -> Desk:
        """A desk for this rollout: one that is large enough, or a new one, which then serves for what the old one did too."""
        others = [desk for desk in self.desks if not desk.alike(draws)]
        mine = next((desk for desk in self.desks if desk.alike(draws)), None)
        if mine is not None and not mine.need.fits(need):
            need, mine = need.joined(mine.need), None
        self.desks = others[max(0, len(others) - DESKS + 1) :]  # what goes has to be gone before the new one comes
        mine = mine or Desk(self.forward, draws, need, device)
        self.desks.append(mine)
        return mine

    def tidy(self, allowed: float) -> None:
        """Give up the desks if they hold more than so many bytes: other work needs the memory more than we need graphs."""
        if sum(desk.n_bytes for desk in self.desks) > allowed:
            self.desks.clear()


_KEPT: WeakKeyDictionary[nn.Module, Kept] = WeakKeyDictionary()


def _allowed(device: torch.device) -> float:
    return SHARE * torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else float("inf")


def _mark(model: nn.Module, dtype: torch.dtype | None) -> object:
    """What a recording depends on beside the values of the weights."""
    weights = tuple((p.data_ptr(), p.dtype, p.shape) for p in model.parameters())
    layers: list[Any] = [module for module in model.modules() if hasattr(module, "merged_adapters")]
    adapters = tuple(
        (x.disable_adapters, tuple(x.active_adapters), tuple(x.merged_adapters), tuple(x.scaling.items())) for x in layers
    )
    return dtype, weights, adapters
