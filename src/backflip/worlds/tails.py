"""Five kinds of error that a proxy may have: under each, optimising it ends differently.

Gold is N(0, 1) and the proxy is gold plus noise. Whether the best by proxy are good depends on the tail of that noise alone, so
what is claimed about over-optimisation should be held against all five: with Gaussian noise there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from backflip.maths.overoptimisation import Floats, Part, laplace, normal, student2, student3
from backflip.seeds import Seeds

Outcome = Literal["none", "plateau", "peak", "cliff"]


@dataclass(frozen=True)
class Tail:
    """A world of one kind of noise: what best of n comes to in it, its parts for enumeration, and how its noise is drawn."""

    outcome: Outcome
    parts: tuple[Part, ...]
    noise: Callable[[np.random.Generator, int], Floats]
    sentence: str

    def draw(self, n: int, seeds: Seeds) -> tuple[Floats, Floats]:
        """Gold and proxy of n samples, (n,) each."""
        rng = seeds.numpy("tails")
        gold = rng.standard_normal(n)
        proxy = gold + self.noise(rng, n)
        kind = rng.choice(len(self.parts), n, p=[part.share for part in self.parts])
        gold += np.array([part.gold for part in self.parts])[kind]
        proxy += np.array([part.proxy for part in self.parts])[kind]
        return gold, proxy


RARE = 0.001
"""Share of the samples that are a hack."""


TAILS: Mapping[str, Tail] = {
    "Gaussian": Tail(
        "none", (Part(1.0, normal()),), lambda rng, n: rng.standard_normal(n), "The best by proxy are the best, at every n."
    ),
    "Laplace": Tail(
        "plateau", (Part(1.0, laplace()),), lambda rng, n: rng.laplace(size=n), "More optimisation neither helps nor harms."
    ),
    "Student t(3)": Tail(
        "peak", (Part(1.0, student3()),), lambda rng, n: rng.standard_t(3, n), "The best by proxy are the noisiest in the end."
    ),
    "Student t(2)": Tail(
        "peak", (Part(1.0, student2()),), lambda rng, n: rng.standard_t(2, n), "The same, sooner."
    ),
    "rare hack": Tail(
        "cliff", (Part(1.0 - RARE, normal(0.7)), Part(RARE, normal(0.7), gold=-4.0, proxy=6.0)),
        lambda rng, n: 0.7 * rng.standard_normal(n),
        "One sample in a thousand looks six better than it is and is four worse: all is well until it is found.",
    ),
}  # fmt: skip
"""Each kind by name. All noise has scale 1, but 0.7 around the hack."""
