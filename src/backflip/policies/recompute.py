"""Less memory for more time: keep what enters each layer and compute the rest again when going back (Chen et al. 2016)."""

from __future__ import annotations

from typing import Any

from backflip.errors import ModelError
from backflip.policies.llama import unwrapped


def recompute(model: Any) -> None:
    """From now on `model` keeps only the inputs of its layers for the backward pass.

    transformers recomputes in training mode alone, where dropout would draw; so its layers are told that they train and what
    is inside them is not. Raises ModelError for a model that cannot.
    """
    whole = unwrapped(model)
    # The second name is the older one, which goes away with transformers 6.
    enable = getattr(whole, "activation_checkpointing_enable", None) or getattr(whole, "gradient_checkpointing_enable", None)
    try:
        if enable is None:
            raise ValueError("it is no model of transformers")
        enable({"use_reentrant": False})
    except ValueError as problem:
        raise ModelError(
            f"{type(whole).__name__} cannot recompute its layers ({problem}); set gradient_checkpointing to false"
        ) from problem


def wake(model: Any) -> None:
    """Call it before a forward pass of transformers whose gradient is wanted: the layers themselves, and nothing inside them, go
    into training mode where `recompute` was called. Anywhere else nothing happens."""
    for module in unwrapped(model).modules():
        if getattr(module, "gradient_checkpointing", False) is True:
            module.training = True
