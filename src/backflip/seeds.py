"""One root seed, many named generators; nothing in backflip touches a global one.

A generator is a pure function of (root seed, purpose, step, chunk), so a unit of work draws the same numbers
whether it runs for the first time, again after a crash, or on another machine, and no generator state has to be
saved with a checkpoint.

>>> Seeds(0).integer("rollout", 3, 1) == Seeds(0).integer("rollout", 3, 1)
True
>>> Seeds(0).integer("rollout", 3, 1) == Seeds(0).integer("rollout", 3, 2)
False
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy
    import torch


@dataclass(frozen=True, slots=True)
class Seeds:
    """The root of all randomness in a run."""

    root: int

    def integer(self, *key: str | int) -> int:
        """A 63-bit integer that depends on the root and on every part of `key`, in order."""
        digest = hashlib.sha256(repr((self.root, *key)).encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1

    def child(self, *key: str | int) -> Seeds:
        """The seeds of a part of the run, independent of its siblings': `seeds.child("round", 2)`."""
        return Seeds(self.integer(*key))

    def numpy(self, *key: str | int) -> numpy.random.Generator:
        """A NumPy generator for one named unit of work."""
        import numpy

        return numpy.random.Generator(numpy.random.PCG64(self.integer(*key)))

    def torch(self, *key: str | int) -> torch.Generator:
        """A PyTorch CPU generator for one named unit of work."""
        import torch

        return torch.Generator().manual_seed(self.integer(*key))

    def permutation(self, n: int, *key: str | int) -> list[int]:
        """The numbers 0 … n−1 in an order that depends on `key`."""
        return [int(i) for i in self.numpy(*key).permutation(n)]


def cyclic_batch(seeds: Seeds, n: int, size: int, step: int, *, purpose: str = "data") -> list[int]:
    """Row indices of batch `step` (from 0) when `n` rows are visited in a fresh order every epoch.

    A pure function of its arguments: the position in the data needs no saving, no row is skipped or seen twice
    within an epoch, and a batch may straddle two epochs.

    >>> sorted(cyclic_batch(Seeds(0), 4, 2, 0) + cyclic_batch(Seeds(0), 4, 2, 1))
    [0, 1, 2, 3]
    """
    if n < 1:
        raise ValueError("cyclic_batch needs at least one row")
    rows: list[int] = []
    position = step * size
    while len(rows) < size:
        epoch, offset = divmod(position, n)
        taken = seeds.permutation(n, purpose, "epoch", epoch)[offset : offset + size - len(rows)]
        rows += taken
        position += len(taken)
    return rows
