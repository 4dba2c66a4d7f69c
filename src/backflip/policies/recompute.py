"""Less memory for more time: keep what enters each layer and compute the rest again when going back (Chen et al. 2016)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from backflip.errors import ModelError
from backflip.policies.llama import unwrapped


def recompute(model: Any) -> None:
    """From now on `model` keeps only the inputs of its layers for the backward pass.

    transformers recomputes a layer in training mode alone, where dropout would draw; so each is told that it trains until its
    pass begins, and is in the model's own mode from there on, both times. Raises ModelError for a model that cannot.
    """
    whole = unwrapped(model)
    # The second name is the older one, which goes away with transformers 6.
    enable = getattr(whole, "activation_checkpointing_enable", None) or getattr(whole, "gradient_checkpointing_enable", None)
    try:
        if enable is None:
            raise ValueError("it is no model of transformers")
        enable({"use_reentrant": False})
        if not _layers(whole):
            raise ValueError("it has no layers that transformers could")
    except ValueError as problem:
        raise ModelError(
            f"{type(whole).__name__} cannot recompute its layers ({problem}); set gradient_checkpointing to false"
        ) from problem
    for layer in _layers(whole):
        layer._gradient_checkpointing_func = functools.partial(_twice, whole, layer)


def wake(model: Any) -> None:
    """Call it before a forward pass of transformers whose gradient is wanted: the layers of a model that was given to `recompute`
    are told that they train. Anywhere else nothing happens."""
    for layer in _layers(unwrapped(model)):
        if layer.gradient_checkpointing:
            layer.training = True


def _layers(whole: Any) -> list[Any]:
    return [module for module in whole.modules() if isinstance(module, GradientCheckpointingLayer)]


def _twice(whole: Any, layer: Any, forward: Callable[..., Any], *given: Any) -> Any:
    """The layer's pass now, and once more when going back."""
    drops = whole.training

    def once(*given: Any) -> Any:
        layer.training = drops  # some layers draw their dropout by this flag of their own
        return forward(*given)

    return checkpoint(once, *given, use_reentrant=False)
