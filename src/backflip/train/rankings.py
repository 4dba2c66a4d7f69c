"""What comparisons say beyond the pair: whole rankings, the ratings behind them, the Elo of each text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from backflip.errors import DataError
from backflip.maths.ratings import elo_to_reward, elo_update
from backflip.records import Comparison
from backflip.seeds import Seeds

Key = tuple[str, str]
"""A completion: the id of its prompt, and its text."""
ELO_START = 1000.0


class Ranked(NamedTuple):
    """A ranking: groups of completions, the best first, equal ones together; and what the verdict weighs."""

    groups: tuple[tuple[Key, ...], ...]
    weight: float


class Target(NamedTuple):
    """A number that the score of a completion should be."""

    completion: Key
    value: float
    weight: float


def rankings(question: Sequence[Comparison], *, whole: bool) -> list[Ranked]:
    """The rankings behind a question's comparisons, one for each annotator.

    The pairs of a ranking say everything about it: a completion stands as high as it has wins, a tie counting half. With
    `whole` every two must have been compared and the answers must fit an order; without, what matters is the best, and the
    pairs among the others may be missing. Raises DataError, with what to do, where there is no such ranking.
    """
    by_annotator: dict[str, list[Comparison]] = {}
    for comparison in question:
        by_annotator.setdefault(comparison.annotator, []).append(comparison)
    return [_ranking(pairs, whole) for pairs in by_annotator.values()]


def _ranking(pairs: Sequence[Comparison], whole: bool) -> Ranked:
    points: dict[Key, float] = {}
    for c in pairs:
        if c.p_left not in (0.0, 0.5, 1.0):
            raise _no_ranking(c, f"a belief of {c.p_left:g} places neither text above the other")
        for text, won in ((c.left, c.p_left), (c.right, 1.0 - c.p_left)):
            points[c.prompt.id, text] = points.get((c.prompt.id, text), 0.0) + won
    weight = math.fsum(c.weight for c in pairs)
    beaten = {(c.prompt.id, c.rejected) for c in pairs if c.p_left != 0.5}
    if not whole:
        best = tuple(key for key in points if key not in beaten)
        rest = tuple(key for key in points if key in beaten)
        if not best:
            raise _no_ranking(pairs[0], "every text is beaten by another one")
        return Ranked(tuple(group for group in (best, rest) if group), weight)
    levels = sorted(set(points.values()), reverse=True)
    groups = tuple(tuple(key for key, value in points.items() if value == level) for level in levels)
    place = {key: i for i, group in enumerate(groups) for key in group}
    met = {frozenset((c.left, c.right)) for c in pairs}
    if len(met) != len(pairs) or len(pairs) != math.comb(len(points), 2):
        raise _no_ranking(pairs[0], f"{len(points)} texts need {math.comb(len(points), 2)} different pairs, not {len(pairs)}")
    for c in pairs:
        gap = place[c.prompt.id, c.right] - place[c.prompt.id, c.left]
        if (gap > 0) - (gap < 0) != round(2 * c.p_left - 1):
            raise _no_ranking(c, "its answers go round in a circle")
    return Ranked(groups, weight)


def _no_ranking(comparison: Comparison, why: str) -> DataError:
    who = f" of {comparison.annotator!r}" if comparison.annotator else ""
    return DataError(
        f"the comparisons{who} on {comparison.prompt.plain[-60:]!r} are no ranking: {why}; "
        "use the loss bradley-terry, or leave that question out"
    )


class Scale(NamedTuple):
    """Mean and standard deviation of an annotator's ratings."""

    mean: float
    std: float


def scales(comparisons: Iterable[Comparison]) -> dict[str, Scale | None]:
    """Each annotator's scale, every rating of a completion counted once; None for one whose ratings do not vary."""
    found: dict[str, dict[Key, float]] = {}
    for completion, annotator, value in _ratings(comparisons):
        found.setdefault(annotator, {})[completion] = value
    return {annotator: _scale(list(values.values())) for annotator, values in found.items()}


def _scale(values: Sequence[float]) -> Scale | None:
    mean = math.fsum(values) / len(values)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
    return Scale(mean, std) if std > 1e-9 * max(1.0, abs(mean)) else None


def rating_targets(question: Sequence[Comparison], known: dict[str, Scale | None]) -> list[Target]:
    """What each annotator gave each completion of a question, on the scales that are `known`; one without stays out.

    With an empty mapping ratings stay as they are. Every rating weighs 1.
    """
    found: dict[tuple[str, Key], float] = {}
    for completion, annotator, value in _ratings(question):
        if not known:
            found[annotator, completion] = value
        elif (scale := known.get(annotator)) is not None:
            found[annotator, completion] = (value - scale.mean) / scale.std
    return [Target(completion, value, 1.0) for (_, completion), value in found.items()]


def _ratings(comparisons: Iterable[Comparison]) -> Iterable[tuple[Key, str, float]]:
    for c in comparisons:
        for text, rating in ((c.left, c.left_rating), (c.right, c.right_rating)):
            if rating is not None:
                yield (c.prompt.id, text), c.annotator, rating


def elo_targets(comparisons: Sequence[Comparison], seeds: Seeds, *, k: float = 32.0) -> dict[Key, float]:
    """The Elo of every completion from the games it played, as a scalar reward with a standard deviation of 1 over all.

    Elo starts at 1000 and goes through the games once, in an order that `seeds` shuffle; those who met, directly or by others,
    make a league, in which r = (Elo − mean)/173.7. The way of "Illustrating RLHF" (Lambert et al. 2022), kept as an ablation:
    order matters, and a text of one game can only be k/2 above or below.
    """
    elo: dict[Key, float] = {}
    league: dict[Key, Key] = {}

    def root(key: Key) -> Key:
        while league[key] != key:
            key = league[key]
        return key

    for i in seeds.permutation(len(comparisons), "elo"):
        c = comparisons[i]
        a, b = (c.prompt.id, c.left), (c.prompt.id, c.right)
        for key in (a, b):
            elo.setdefault(key, ELO_START)
            league.setdefault(key, key)
        elo[a], elo[b] = elo_update(elo[a], elo[b], c.p_left, k=k)
        league[root(a)] = root(b)
    members: dict[Key, list[Key]] = {}
    for key in elo:
        members.setdefault(root(key), []).append(key)
    rewards: dict[Key, float] = {}
    for keys in members.values():
        rewards |= dict(zip(keys, elo_to_reward([elo[key] for key in keys]).tolist(), strict=True))
    spread = math.sqrt(math.fsum(r * r for r in rewards.values()) / max(1, len(rewards)))  # each league has mean 0
    return {key: reward / spread if spread > 0 else 0.0 for key, reward in rewards.items()}
