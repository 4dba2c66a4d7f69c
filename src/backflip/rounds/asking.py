"""What a round asks: about the policy as it is, about earlier ones beside it, and about what looked suspicious.

suspicious samples of the last round's monitor ─┐
pairs of the policy's own completions           ├─ candidates → a rule, and a share drawn at random → questions
its completions beside an earlier policy's      ─┘
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from backflip.errors import ConfigError
from backflip.feedback.asking import Candidate, Rule, choose, newness, pair_key, text_features, values
from backflip.feedback.queries import pair_queries
from backflip.records import Prompt, Query, Sample
from backflip.rewards.ensemble import Ensemble, Learned
from backflip.seeds import Seeds
from backflip.settings import Rounds

Sampler = Callable[[str, Sequence[Prompt], int, str], list[list[Sample]]]
"""(policy, prompts, n, key) → n completions of each prompt; the key keeps two draws of one policy apart."""
BY_MEMBERS = ("disagreement", "information")
"""Rules that need several reward models."""


class Chosen(NamedTuple):
    """The questions of a round, how many of them came from where, and of those that a rule chose: its name and for each the id,
    whether it belongs to the random share, and what the rule gave it."""

    queries: list[Query]
    counts: dict[str, int]
    rule: str = "random"
    chosen: tuple[tuple[str, bool, float], ...] = ()


def check_asking(settings: Rounds) -> None:
    """Raise ConfigError when the settings of asking do not fit together."""
    if settings.ask in BY_MEMBERS and settings.reward.ensemble.members < 2:
        raise ConfigError(
            f"ask {settings.ask!r} needs reward models that can differ: set train.reward.ensemble.members to 3 or so"
        )
    if settings.ask != "random" and settings.candidates < 2:
        raise ConfigError(
            f"ask {settings.ask!r} chooses among candidates: set train.candidates to 4 or so, or train.ask to random"
        )
    if settings.mined and not (settings.watch.every and (settings.sentinel or settings.watch.judges)):
        raise ConfigError(
            "mined questions come from a monitor with a judge: set train.watch.every, and train.sentinel or train.watch.judges"
        )


def draw(
    settings: Rounds, number: int, policy: str, earlier: Sequence[str], prompts: Sequence[Prompt], sample: Sampler, seeds: Seeds,
    *, suspects: Sequence[Query] = (), asked: Sequence[Query] = (), reward: Learned | None = None, times: int = 1,
) -> Chosen:  # fmt: skip
    """The questions of round `number` about `policy`, `times` as many as the settings say.

    At most the share `mined` of them are `suspects`, of the rest the share `past` sets the policy against one of `earlier`, and
    among `candidates` pairs for each question the rule `ask` chooses by what `reward` thinks of them; without a reward model yet
    they are drawn at random. Nothing in `asked` is asked again.
    """
    wanted = settings.comparisons * times
    known = {query.id for query in asked}
    mined = [query for query in suspects if query.id not in known][: round(settings.mined * wanted)]
    free = wanted - len(mined)
    pairs = _pairs(settings, number, policy, earlier, prompts, free * settings.candidates, sample, seeds)
    counts = {"mined": len(mined)}
    rule: Rule = "random"
    chosen: tuple[tuple[str, bool, float], ...] = ()
    if settings.candidates > 1:
        rule = settings.ask if reward is not None or settings.ask == "explore" else "random"
        pairs, chosen = _selected(rule, pairs, asked, reward, free, settings.random_share, seeds.child("asking", number))
    counts["with an earlier policy"] = sum(len(set(query.policies)) > 1 for query in pairs)
    counts["of the policy alone"] = len(pairs) - counts["with an earlier policy"]
    return Chosen([*mined, *pairs], counts, rule, chosen)


def _pairs(
    settings: Rounds, number: int, policy: str, earlier: Sequence[str], prompts: Sequence[Prompt], count: int, sample: Sampler,
    seeds: Seeds,
) -> list[Query]:  # fmt: skip
    """As many pairs as asked for, or fewer where both completions say the same."""
    chosen = seeds.permutation(len(prompts), "queries", number)
    drawn = [prompts[chosen[i % len(chosen)]] for i in range(count)]
    crossed = round(settings.past * count) if earlier else 0
    groups = sample(policy, drawn[crossed:], 2, "queries") if crossed < count else []
    if crossed:
        own = sample(policy, drawn[:crossed], 1, "beside earlier ones")
        rng = seeds.numpy("earlier", number)
        by = [earlier[int(i)] for i in rng.integers(len(earlier), size=crossed)]
        others: dict[int, Sample] = {}
        for name in dict.fromkeys(by):
            places = [i for i, each in enumerate(by) if each == name]
            found = sample(name, [drawn[i] for i in places], 1, f"of round {number}")
            others |= {i: each[0] for i, each in zip(places, found, strict=True)}
        groups = [[*each, others[i]] for i, each in enumerate(own)] + groups
    return pair_queries(groups, seeds=seeds.child("pairs", number))


def _selected(
    rule: Rule, pairs: Sequence[Query], asked: Sequence[Query], reward: Learned | None, budget: int, random_share: float,
    seeds: Seeds,
) -> tuple[list[Query], tuple[tuple[str, bool, float], ...]]:  # fmt: skip
    """The pairs that a rule chooses, and how each was chosen."""
    candidates = [_candidate(query) for query in pairs]
    before = frozenset(pair_key(_candidate(query)) for query in asked if len(query.completions) == 2)
    new_C = None
    if rule == "explore":
        seen = [text for query in asked for text in query.completions]
        new_C = newness(_features(pairs), text_features(seen))
    left_KC, right_KC = _scores(reward, pairs) if rule not in ("random", "explore") else (np.zeros((1, len(pairs))),) * 2
    worth_C = values(rule, left_KC, right_KC, newness_C=new_C)
    chosen, _ = choose(candidates, worth_C, budget=budget, seeds=seeds, random_share=random_share, before=before)
    found = [_swapped(pairs[each.index]) if each.swap else pairs[each.index] for each in chosen]
    return found, tuple((query.id, each.random, each.value) for query, each in zip(found, chosen, strict=True))


def _candidate(query: Query) -> Candidate:
    left, right = query.completions
    return Candidate(query.prompt.id, left, right)


def _swapped(query: Query) -> Query:
    return dataclasses.replace(query, completions=query.completions[::-1], policies=query.policies[::-1])


def _features(pairs: Sequence[Query]) -> NDArray[np.float64]:
    """Where a question lies: the middle of its two texts."""
    sides = [text_features([query.completions[side] for query in pairs]) for side in (0, 1)]
    middle: NDArray[np.float64] = (sides[0] + sides[1]) / 2
    return middle


def _scores(reward: Learned | None, pairs: Sequence[Query]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What each member thinks of the left and of the right texts, (K, C) each."""
    assert reward is not None
    members = reward.members if isinstance(reward, Ensemble) else [reward]
    texts = [query.prompt.plain for query in pairs]
    left, right = (
        np.array([member(texts, [query.completions[side] for query in pairs]) for member in members]) for side in (0, 1)
    )
    return left, right
