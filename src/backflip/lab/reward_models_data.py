"""The texts and the answers of `reward-models`: what people say of completions, by comparing, ranking or rating them."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from backflip.feedback.labelers import Oracle
from backflip.lab.reward_models_settings import People
from backflip.records import Comparison, Prompt, Query, Verdict
from backflip.seeds import Seeds
from backflip.worlds.annotators import Annotator, Panel, tastes
from backflip.worlds.reviews import Reviews

RATING, COMPARING, RANKING = 1.0, 1.5, 4.5
"""Units of time for a rating, for a comparison, for a ranking of four (three comparisons)."""


class Pool(NamedTuple):
    """The completions of a prompt, all different."""

    prompt: Prompt
    texts: list[str]


class Crowd:
    """Simulated people who share the questions; each question goes to one of them."""

    def __init__(self, world: Reviews, settings: People, seeds: Seeds) -> None:
        self.settings, self.seeds = settings, seeds
        self.panel = Panel(tastes(world, settings.number, seeds, settings.taste_spread), seeds)

    def compare(self, queries: Sequence[Query]) -> list[Comparison]:
        """What they say of pairs, or of more as rankings."""
        s = self.settings
        found: list[Comparison] = []
        for query in queries:
            person = self.panel.assign(query)
            oracle = Oracle(person, seeds=self.seeds, name=person.name, noise=s.noise, temperature=s.temperature)
            found += oracle.answer(query).comparisons(query)
        return found

    def rate(self, queries: Sequence[Query]) -> list[Comparison]:
        """What they say of each completion by itself: a_j + b_j·u + noise, in steps, and blindly as often as in comparing."""
        return [c for query in queries for c in self._rating(self.panel.assign(query), query).comparisons(query)]

    def _rating(self, person: Annotator, query: Query) -> Verdict:
        s = self.settings
        own, rng = self.seeds.numpy("scale", person.name), self.seeds.numpy("rating", query.id)
        offset, scale = s.rating_offset * own.standard_normal(), math.exp(s.rating_scale * own.standard_normal())
        scores = []
        for text in query.completions:
            blind, error, anything = rng.random() < s.noise, rng.standard_normal(), rng.normal(0.0, 1.5)
            felt = anything if blind else person(query.prompt, text) + s.rating_noise * error
            scores.append(round((offset + scale * felt) / s.rating_step) * s.rating_step)
        return Verdict(query.id, person.name, "rating", scores=tuple(scores))


def pairs(pools: Sequence[Pool], n: int) -> list[Query]:
    """n questions about two completions each, or as many as there are, spread evenly over the prompts, no completion twice."""
    found: list[Query] = []
    most = max(len(pool.texts) for pool in pools) // 2
    for i in range(most):
        found += [Query(p.prompt, tuple(p.texts[2 * i : 2 * i + 2])) for p in pools if len(p.texts) >= 2 * i + 2]
    return found[:n]


def rankings(pools: Sequence[Pool], n: int, seeds: Seeds, sizes: Sequence[int] = (4, 5, 6, 7, 8, 9)) -> list[Query]:
    """n questions about several completions, how many is drawn, one for each prompt that has so many."""
    draw = random.Random(seeds.integer("rankings"))
    found: list[Query] = []
    for pool in pools:
        k = draw.choice(list(sizes))
        if len(pool.texts) >= k and len(found) < n:
            found.append(Query(pool.prompt, tuple(pool.texts[:k])))
    return found


def games(pools: Sequence[Pool], each: int, seeds: Seeds, items: int = 4) -> list[Query]:
    """Pairs of a prompt's first completions such that each completion plays `each` games; a pair may meet again."""
    found = []
    for number, pool in enumerate(pools):
        texts = pool.texts[:items]
        if len(texts) < items:
            continue
        for round_ in range(each):
            order = seeds.permutation(items, "games", number, round_)
            sides = zip(order[::2], order[1::2], strict=True)
            found += [Query(pool.prompt, (texts[i], texts[j]), purpose=f"train{round_}") for i, j in sides]
    return found


def spoilt(comparisons: Sequence[Comparison], share: float, seeds: Seeds) -> list[Comparison]:
    """The same comparisons, a share of them turned round."""
    draw = random.Random(seeds.integer("label noise"))
    return [dataclasses.replace(c, p_left=1.0 - c.p_left) if draw.random() < share else c for c in comparisons]


def truth(pools: Sequence[Pool], gold: Callable[[Prompt, str], float]) -> list[Comparison]:
    """Pairs of completions as gold has them; those that are worth the same are left out."""
    found = []
    for pool in pools:
        for i in range(0, len(pool.texts) - 1, 2):
            left, right = pool.texts[i : i + 2]
            a, b = gold(pool.prompt, left), gold(pool.prompt, right)
            if a != b:
                found.append(Comparison(pool.prompt, left, right, float(a > b)))
    return found
