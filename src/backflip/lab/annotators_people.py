"""The people of `annotators`, and the texts they compare: three groups with opposed tastes in the world of reviews."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backflip.feedback.labelers import Oracle
from backflip.lab.annotators_settings import Settings
from backflip.records import Comparison, Prompt, Query
from backflip.seeds import Seeds
from backflip.worlds.annotators import Annotator
from backflip.worlds.reviews import Reviews, Weights
from backflip.worlds.reviews.grammar import Rates, draw_review, read_prompt, write

Floats = NDArray[np.float64]

GROUPS: dict[str, tuple[float, Weights]] = {
    "warm": (0.6, Weights()),
    "cold": (0.3, Weights(sentiment=-3.0, on_topic=2.0)),
    "plain": (0.1, Weights(sentiment=-0.5, descriptiveness=-3.0, on_topic=1.0, long=-4.0)),
}
"""Which share of the people, and what they weigh: praise, its opposite, and that a text be short and without ornament."""


@dataclass(frozen=True)
class Person:
    """Somebody of a group, with a taste of their own near the group's."""

    name: str
    group: int
    taste: Annotator


def people(settings: Settings, seeds: Seeds) -> list[Person]:
    """Everybody, the groups one after the other; each group has a person at least."""
    found: list[Person] = []
    for g, (name, (share, weights)) in enumerate(GROUPS.items()):
        for j in range(max(1, round(share * settings.people))):
            rng = seeds.numpy("person", name, j)
            own = {
                field.name: getattr(weights, field.name) * math.exp(settings.taste_spread * rng.standard_normal())
                for field in dataclasses.fields(Weights)
            }
            who = f"{name}-{j + 1:02d}"
            found.append(Person(who, g, Annotator(who, Reviews(), Weights(**own))))
    return found


def pairs(n: int, seeds: Seeds, split: str = "train") -> list[Query]:
    """Questions: a prompt and two different texts of wide style."""
    return [Query(prompt, (a, b)) for prompt, (a, b) in options(n, 2, seeds, split)]


def options(n: int, k: int, seeds: Seeds, split: str = "train") -> list[tuple[Prompt, list[str]]]:
    """n prompts with k different texts each, each text of a style of its own."""
    rng, found = random.Random(seeds.integer("texts")), []
    for prompt in Reviews().prompts(n, seeds.child("prompts"), "test" if split == "test" else "train"):
        facts = read_prompt(prompt.plain)
        assert facts is not None
        texts: list[str] = []
        while len(texts) < k:
            rates = Rates(
                positive=rng.random(), descriptive=rng.random(), on_topic=rng.uniform(0.4, 1.0), right=rng.uniform(0.6, 1.0),
                complete=rng.uniform(0.3, 1.0),
            )  # fmt: skip
            text = write(draw_review(facts, rates, rng))
            if text not in texts:
                texts.append(text)
        found.append((prompt, texts))
    return found


def answered(person: Person, queries: Sequence[Query], settings: Settings, seeds: Seeds) -> list[Comparison]:
    """What a person says of each question, errors included."""
    oracle = Oracle(
        person.taste, seeds=seeds, name=person.name, noise=settings.noise, temperature=settings.choice_temperature
    )  # fmt: skip
    return [comparison for query in queries for comparison in oracle.answer(query).comparisons(query)]


def utilities(persons: Sequence[Person], rows: Sequence[tuple[Prompt, str]]) -> Floats:
    """What each text is truly worth to each person, (B, J)."""
    return np.array([[person.taste(prompt, text) for person in persons] for prompt, text in rows], dtype=np.float64)


def true_gaps(persons: Sequence[Person], queries: Sequence[Query]) -> Floats:
    """By how much each person truly prefers the left text, (N, J)."""
    left, right = (utilities(persons, [(query.prompt, query.completions[k]) for query in queries]) for k in (0, 1))
    found: Floats = left - right
    return found
