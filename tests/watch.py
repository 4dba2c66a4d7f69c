"""Modes that watch every operation of PyTorch for what only a GPU would punish."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class NobodyWaits(TorchDispatchMode):
    """Fails on everything that reads a number on the host, or makes a tensor there, or whose shape hangs on values."""

    FORBIDDEN = ("_local_scalar_dense", "nonzero", "masked_select", "lift_fresh", "unique", "equal", "is_nonzero", "repeat_inter")

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.seen.add(name)
        assert not name.startswith(self.FORBIDDEN), f"{name} waits for the device"
        if name.startswith("index"):
            indices = [x for x in tree_leaves(args[1:2]) if isinstance(x, torch.Tensor)]
            assert all(x.dtype == torch.long for x in indices), f"{name} by a mask has a shape that hangs on values"
        return func(*args, **(kwargs or {}))


class OneDevice(TorchDispatchMode):
    """Fails where tensors of two devices meet; single numbers may come from the host."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor) and x.dim()]
        name = func.overloadpacket.__name__
        assert len({x.device for x in tensors}) <= 1 or name in ("_to_copy", "copy_"), f"{name} reads from two devices"
        return func(*args, **(kwargs or {}))
