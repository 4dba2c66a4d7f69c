"""Simulated people: each has a taste of their own near gold's, and a panel decides who is asked what.

Annotator j weighs each factor f as w_j,f = w_f · exp(spread · z_j,f) with z standard normal, and has a bias for longer
or shorter texts, spread · z_j,0, that gold lacks. How a utility becomes a noisy choice is the labeler's business
(`feedback.labelers`), not a matter of taste.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

from backflip.records import Prompt, Query
from backflip.seeds import Seeds
from backflip.worlds.reviews import Reviews, Weights


@dataclass(frozen=True, slots=True)
class Annotator:
    """One simulated person; calling it gives the utility of a completion to that person."""

    name: str
    world: Reviews
    weights: Weights

    def __call__(self, prompt: Prompt, completion: str) -> float:
        """How good `completion` is to this person, on gold's scale."""
        return self.world.judge(prompt, completion, self.weights)


def tastes(world: Reviews, n: int, seeds: Seeds, spread: float = 0.2) -> list[Annotator]:
    """n people whose taste scatters around gold by `spread`; person j is the same whatever n is.

    A spread of 0 gives n people who all judge as gold does. Raises ValueError on a negative or non-finite spread.
    """
    if not (spread >= 0 and math.isfinite(spread)):
        raise ValueError(f"spread is a finite number of at least 0, not {spread}")
    return [Annotator(f"annotator-{j + 1:02d}", world, _weights(seeds, j, spread)) for j in range(n)]


def _weights(seeds: Seeds, j: int, spread: float) -> Weights:
    rng = seeds.numpy("annotator", j)
    gold = Weights()
    own = {
        field.name: getattr(gold, field.name) * math.exp(spread * rng.standard_normal())
        for field in dataclasses.fields(Weights)
        if field.name != "long"  # the bias is drawn on its own
    }
    return dataclasses.replace(gold, **own, long=spread * float(rng.standard_normal()))


class Panel:
    """Several people who share the queries: each query goes to one of them, decided by its id alone.

    Raises ValueError when there is nobody to ask.
    """

    def __init__(self, annotators: Sequence[Annotator], seeds: Seeds) -> None:
        if not annotators:
            raise ValueError("a panel needs at least one annotator")
        self.annotators = tuple(annotators)
        self._seeds = seeds

    def assign(self, query: Query) -> Annotator:
        """Who answers `query`: the same person whenever and in whatever order it is asked."""
        return self.annotators[self._seeds.integer("panel", query.id) % len(self.annotators)]
