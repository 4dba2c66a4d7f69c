"""From verdicts to standings: Bradley–Terry ratings with intervals, rank ranges, and every pair's win rate.

The order in which people answered does not matter (only, where one person answered a question twice, which answer
came last).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from backflip.arena.games import Counts, Game, Games, VerdictStore
from backflip.arena.table import plain_table
from backflip.config import unknown
from backflip.maths.length_control import bootstrap_length_controlled, length_controlled_ratings, length_difference
from backflip.maths.ratings import (
    RatingIntervals,
    Votes,
    WinRate,
    bootstrap_ratings,
    bradley_terry_ratings,
    components,
    win_rate,
)
from backflip.records import Rating
from backflip.seeds import Seeds

CERTAIN = 0.975
"""How large a share of the resamples must agree before one policy is ranked above another (two-sided 95 %)."""

WinRates = dict[tuple[str, str], WinRate]
Known = dict[tuple[str, str], tuple[tuple[Any, ...], WinRate]]


class LengthEffect(NamedTuple):
    """By how many nats the odds of a win rise for a text longer by the `typical` difference, with the 95 % interval.

    The difference is (left − right)/(left + right) in characters; `typical` is its root mean square over the games.
    """

    coefficient: float
    low: float
    high: float
    typical: float


@dataclass(frozen=True)
class Standings:
    """Policies from best to worst, and how sure we are. `print(standings)` shows a table.

    `rank_ranges` says between which places a policy may stand; `win_rates[a, b]` how often a beat b, for pairs that
    met; `better[a, b]` in which share of the resamples a's rating was above b's. `components` tells which policies are
    joined by chains of matches, `comparable` whether all are. `regularised`: someone is undefeated or has never won, and only
    a weak prior keeps the ratings finite. `length` is what length does, where it was taken out of the ratings.
    """

    ratings: tuple[Rating, ...]
    rank_ranges: dict[str, tuple[int, int]] = field(default_factory=dict)
    win_rates: dict[tuple[str, str], WinRate] = field(default_factory=dict)
    components: tuple[tuple[str, ...], ...] = ()
    anchor: str | None = None
    regularised: bool = False
    better: dict[tuple[str, str], float] = field(default_factory=dict)
    length: LengthEffect | None = None

    @property
    def comparable(self) -> bool:
        """Whether every policy has a rating on one scale."""
        return bool(self.ratings) and all(rating.comparable for rating in self.ratings)

    @property
    def notes(self) -> list[str]:
        """What a reader of the numbers must know, one sentence each."""
        if not self.ratings:
            return ["no matches yet"]
        said = []
        if len(self.components) > 1:
            groups = ["{" + ", ".join(group) + "}" for group in self.components]
            said.append(f"not comparable yet: {', '.join(groups[:-1])} and {groups[-1]} share no matches")
        if self.anchor is not None and all(r.matches == 0 for r in self.ratings if r.policy == self.anchor):
            said.append(f"the anchor {self.anchor!r} has no votes yet")
        if self.regularised:
            said.append(
                "a policy or group is undefeated or has never won, so no finite rating fits the matches; "
                "a weak prior (standard deviation 549 points) holds the ratings"
            )
        return said

    def __str__(self) -> str:
        return plain_table(self)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; win rates as a list of rows, best policy first."""
        return {
            "ratings": [
                {**rating.to_json(), "rank": list(self.rank_ranges.get(rating.policy, ())) or None} for rating in self.ratings
            ],
            "win_rates": [{"policy": a, "against": b, **rate._asdict()} for (a, b), rate in self.win_rates.items()],
            "comparable": self.comparable,
            "components": [list(group) for group in self.components],
            "anchor": self.anchor,
            "regularised": self.regularised,
            "better": [{"policy": a, "than": b, "p": share} for (a, b), share in self.better.items()],
            "length": None if self.length is None else self.length._asdict(),
            "notes": self.notes,
        }


def standings(
    store: VerdictStore, *, seeds: Seeds, purpose: str = "arena", anchor: str | None = None, resamples: int = 1000,
    counts: Counts | None = None, length_controlled: bool = False,
) -> Standings:  # fmt: skip
    """Rate every policy that the matches of `purpose` name; the anchor (or the mean) stands at 1000.

    Each verdict counts as one vote, a ranking of K as its C(K,2) pairs; where somebody answered a question twice the
    last answer counts. Intervals resample prompts. Policies without a vote have no rating; if those with votes fall
    into groups that never met, or the anchor has no vote, nobody has one. `counts` says whose answers count, by name
    (default: everybody's); ties of identical texts always do. `length_controlled` ratings are those at equal length.
    Raises ConfigError for an anchor that plays no match and DataError for a match that does not say who wrote its texts.
    """
    games = Games.of(store, purpose)
    return rate(games, seeds=seeds, anchor=anchor, resamples=resamples, counts=counts, length_controlled=length_controlled)


def rate(
    matches: Games, *, seeds: Seeds, anchor: str | None = None, resamples: int = 1000,
    counts: Counts | None = None, length_controlled: bool = False, known: Known | None = None,
) -> Standings:  # fmt: skip
    """`standings` of these matches. `known` keeps win rates from one call to the next: only pairs that played anew, or were
    counted differently, are worked out again."""
    names = matches.names
    if anchor is not None and names and anchor not in names:
        raise unknown(anchor, names, "anchor")
    seeds = seeds.child("standings", matches.purpose)
    games = matches.played(counts)
    total_MM = _votes(games, names).win_matrix()
    played = dict(zip(names, (total_MM + total_MM.T).sum(axis=1).round().astype(int).tolist(), strict=True))
    groups = tuple(tuple(names[i] for i in group) for group in components(total_MM)) if names else ()
    together = [group for group in groups if len(group) > 1]
    fit = _Fit({}, {}, False, None)
    if len(together) == 1 and (anchor is None or anchor in together[0]):
        fit = _places(games, together[0], anchor, seeds, resamples, length_controlled)
    nowhere = _Place(None, None, None, None)
    ratings = [Rating(name, *fit.places.get(name, nowhere)[:3], matches=played[name]) for name in names]
    ratings.sort(key=lambda r: (r.rating is None, -(r.rating or 0.0), r.policy))
    return Standings(
        ratings=tuple(ratings),
        rank_ranges={name: place.ranks for name, place in fit.places.items() if place.ranks is not None},
        win_rates=_win_rates(games, [r.policy for r in ratings], seeds, {} if known is None else known),
        components=groups,
        anchor=anchor,
        regularised=fit.regularised,
        better=fit.better,
        length=fit.length,
    )


class _Place(NamedTuple):
    rating: float | None
    low: float | None
    high: float | None
    ranks: tuple[int, int] | None


class _Fit(NamedTuple):
    places: dict[str, _Place]
    better: dict[tuple[str, str], float]
    regularised: bool
    length: LengthEffect | None


def _places(
    games: list[Game], names: tuple[str, ...], anchor: str | None, seeds: Seeds, resamples: int, length_controlled: bool
) -> _Fit:
    """Rating, interval and rank range of policies joined by matches, and how they were found."""
    votes, row, rng = _votes(games, names), names.index(anchor) if anchor is not None else None, seeds.numpy("bootstrap")
    length: LengthEffect | None = None
    if length_controlled:
        difference_B = length_difference([game.left_length for game in games], [game.right_length for game in games])
        controlled = length_controlled_ratings(votes, difference_B, anchor=row)
        drawn = bootstrap_length_controlled(votes, difference_B, rng=rng, resamples=resamples, anchor=row)
        elo_M, regularised, bounds = controlled.elo_M, controlled.regularised, drawn.ratings
        low, high = min(drawn.low, controlled.coefficient), max(drawn.high, controlled.coefficient)
        length = LengthEffect(controlled.coefficient, low, high, controlled.typical)
    else:
        fit = bradley_terry_ratings(votes.win_matrix(), anchor=row)
        elo_M, regularised = fit.elo_M, fit.regularised
        bounds = bootstrap_ratings(votes, rng=rng, resamples=resamples, anchor=row)
    assert elo_M is not None, "policies of one group are comparable"
    # Under the prior the estimate can fall just outside the resamples; an interval that misses it would puzzle.
    low_M, high_M = np.minimum(bounds.low_M, elo_M), np.maximum(bounds.high_M, elo_M)
    places = {
        name: _Place(float(elo_M[i]), float(low_M[i]), float(high_M[i]), _rank_range(bounds, i)) for i, name in enumerate(names)
    }
    better = {
        (a, b): float(bounds.better_MM[i, j]) for i, a in enumerate(names) for j, b in enumerate(names) if a != b
    }  # fmt: skip
    return _Fit(places, better, regularised, length)


def _votes(games: list[Game], names: Sequence[str]) -> Votes:
    """The games as columns of numbers, policies numbered as in `names` and prompts by the order of their ids."""
    place = {name: i for i, name in enumerate(names)}
    prompts = {prompt: i for i, prompt in enumerate(sorted({game.prompt for game in games}))}
    return Votes(
        left_B=np.array([place[game.left] for game in games], dtype=np.int64),
        right_B=np.array([place[game.right] for game in games], dtype=np.int64),
        p_left_B=np.array([game.p_left for game in games], dtype=np.float64),
        prompt_B=np.array([prompts[game.prompt] for game in games], dtype=np.int64),
        n_policies=len(names),
    )


def _rank_range(bounds: RatingIntervals, row: int) -> tuple[int, int]:
    """The best and worst place (1-based) a policy may hold, given who is surely above and surely below it."""
    above = int((bounds.better_MM[:, row] >= CERTAIN).sum())
    below = int((bounds.better_MM[row] >= CERTAIN).sum())
    return 1 + above, len(bounds.better_MM) - below


def _win_rates(games: list[Game], order: list[str], seeds: Seeds, known: Known) -> WinRates:
    """How often each policy beat each other one it met, rows and columns in `order`."""
    met: dict[tuple[str, str], tuple[list[float], list[str]]] = {}
    for game in games:
        swapped = game.left > game.right
        scores, prompts = met.setdefault((game.right, game.left) if swapped else (game.left, game.right), ([], []))
        scores.append(1.0 - game.p_left if swapped else game.p_left)
        prompts.append(game.prompt)
    rates: WinRates = {}
    for (a, b), (scores, prompts) in met.items():
        seed, (before, rate) = seeds.integer("win rate", a, b), known.get((a, b), ((), None))
        outcomes = (seed, *scores, *prompts)
        if rate is None or before != outcomes:
            rate = win_rate(scores, prompts, seed=seed)
            known[a, b] = outcomes, rate
        rates[a, b], rates[b, a] = rate, rate.swap()
    return {(a, b): rates[a, b] for a in order for b in order if (a, b) in rates}
