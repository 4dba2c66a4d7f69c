"""From verdicts to standings: Bradley–Terry ratings with intervals, rank ranges, and every pair's win rate.

The order in which people answered does not matter (only, where one person answered a question twice, which answer
came last).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from backflip.arena.matches import SAME_TEXT, same_text_purpose
from backflip.arena.table import plain_table
from backflip.config import unknown
from backflip.errors import DataError
from backflip.maths.ratings import (
    RatingIntervals,
    Votes,
    WinRate,
    bootstrap_ratings,
    bradley_terry_ratings,
    components,
    win_rate,
)
from backflip.records import Comparison, Query, Rating, Verdict
from backflip.seeds import Seeds

CERTAIN = 0.975
"""How large a share of the resamples must agree before one policy is ranked above another (two-sided 95 %)."""


_Game = tuple[str, Comparison]  # the prompt's id, and what was found about two texts on it


class VerdictStore(Protocol):
    """What `standings` needs of a feedback store."""

    def queries(self, purpose: str | None = None) -> list[Query]:
        """Every query of a purpose."""

    def verdicts(self, since: int = 0, purpose: str | None = None) -> list[Verdict]:
        """Every verdict on queries of a purpose that was not taken back."""


@dataclass(frozen=True)
class Standings:
    """Policies from best to worst, and how sure we are. `print(standings)` shows a table.

    `rank_ranges` says between which places a policy may stand; `win_rates[a, b]` how often a beat b, for pairs that
    met; `components` which policies are joined by chains of matches, `comparable` whether all are. `regularised`:
    someone is undefeated or has never won, and only a weak prior keeps the ratings finite.
    """

    ratings: tuple[Rating, ...]
    rank_ranges: dict[str, tuple[int, int]] = field(default_factory=dict)
    win_rates: dict[tuple[str, str], WinRate] = field(default_factory=dict)
    components: tuple[tuple[str, ...], ...] = ()
    anchor: str | None = None
    regularised: bool = False

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
            "notes": self.notes,
        }


def standings(
    store: VerdictStore, *, seeds: Seeds, purpose: str = "arena", anchor: str | None = None, resamples: int = 1000
) -> Standings:
    """Rate every policy that the matches of `purpose` name; the anchor (or the mean) stands at 1000.

    Each verdict counts as one vote, a ranking of K as its C(K,2) pairs; where somebody answered a question twice the
    last answer counts. Intervals resample prompts. Policies without a vote have no rating; if those with votes fall
    into groups that never met, or the anchor has no vote, nobody has one. Raises ConfigError for an anchor that
    plays no match and DataError for a match that does not say who wrote its texts.
    """
    same = same_text_purpose(purpose)
    # Verdicts before queries: a query is filed first, so whoever votes meanwhile leaves no verdict without its query.
    # Whoever was shown two identical texts all the same told us nothing; only the tie filed with them counts.
    verdicts = list(store.verdicts(purpose=purpose))
    verdicts += [verdict for verdict in store.verdicts(purpose=same) if verdict.annotator == SAME_TEXT]
    queries = {query.id: query for query in [*store.queries(purpose), *store.queries(same)]}
    return rate(queries, verdicts, seeds=seeds.child("standings", purpose), anchor=anchor, resamples=resamples)


def rate(
    queries: dict[str, Query],
    verdicts: Iterable[Verdict],
    *,
    seeds: Seeds,
    anchor: str | None = None,
    resamples: int = 1000,
) -> Standings:
    """`standings` of these verdicts on these queries (by id)."""
    for query in queries.values():
        if not all(query.policies) or not query.policies:
            raise DataError(f"match {query.id} does not say which policies wrote its texts; give its 'policies'")
    names = sorted({name for query in queries.values() for name in query.policies})
    if anchor is not None and names and anchor not in names:
        raise unknown(anchor, names, "anchor")
    games = _games(queries, verdicts)
    total_MM = _votes(games, names).win_matrix()
    matches = dict(zip(names, (total_MM + total_MM.T).sum(axis=1).round().astype(int).tolist(), strict=True))
    groups = tuple(tuple(names[i] for i in group) for group in components(total_MM)) if names else ()
    together = [group for group in groups if len(group) > 1]
    placed: dict[str, _Place] = {}
    regularised = False
    if len(together) == 1 and (anchor is None or anchor in together[0]):
        placed, regularised = _places(games, together[0], anchor, seeds, resamples)
    nowhere = _Place(None, None, None, None)
    ratings = [Rating(name, *placed.get(name, nowhere)[:3], matches=matches[name]) for name in names]
    ratings.sort(key=lambda r: (r.rating is None, -(r.rating or 0.0), r.policy))
    return Standings(
        ratings=tuple(ratings),
        rank_ranges={name: place.ranks for name, place in placed.items() if place.ranks is not None},
        win_rates=_win_rates(games, [r.policy for r in ratings], seeds),
        components=groups,
        anchor=anchor,
        regularised=regularised,
    )


class _Place(NamedTuple):
    rating: float | None
    low: float | None
    high: float | None
    ranks: tuple[int, int] | None


def _places(
    games: list[_Game], names: tuple[str, ...], anchor: str | None, seeds: Seeds, resamples: int
) -> tuple[dict[str, _Place], bool]:
    """Rating, interval and rank range of policies joined by matches, and whether the prior was needed."""
    votes = _votes(games, names)
    row = names.index(anchor) if anchor is not None else None
    fit = bradley_terry_ratings(votes.win_matrix(), anchor=row)
    bounds = bootstrap_ratings(votes, rng=seeds.numpy("bootstrap"), resamples=resamples, anchor=row)
    assert fit.elo_M is not None, "policies of one group are comparable"
    # Under the prior the estimate can fall just outside the resamples; an interval that misses it would puzzle.
    low_M, high_M = np.minimum(bounds.low_M, fit.elo_M), np.maximum(bounds.high_M, fit.elo_M)
    return {
        name: _Place(float(fit.elo_M[i]), float(low_M[i]), float(high_M[i]), _rank_range(bounds, i))
        for i, name in enumerate(names)
    }, fit.regularised


def _games(queries: dict[str, Query], verdicts: Iterable[Verdict]) -> list[_Game]:
    """(prompt, comparison) for every pair judged, in an order that does not depend on who answered when."""
    last: dict[tuple[str, str], Verdict] = {}
    for verdict in verdicts:
        last[verdict.query_id, verdict.annotator] = verdict
    prompts = {id: query.prompt.id for id, query in queries.items()}
    games = []
    for key in sorted(last):
        query = queries.get(key[0])
        if query is None:
            raise DataError(f"a verdict by {key[1]!r} answers query {key[0]}, which is not among the matches")
        for game in last[key].comparisons(query):
            if game.left_policy != game.right_policy:
                games.append((prompts[query.id], game))
    return games


def _votes(games: list[_Game], names: Sequence[str]) -> Votes:
    """The games as columns of numbers, policies numbered as in `names` and prompts by the order of their ids."""
    place = {name: i for i, name in enumerate(names)}
    prompts = {prompt: i for i, prompt in enumerate(sorted({prompt for prompt, _ in games}))}
    return Votes(
        left_B=np.array([place[game.left_policy] for _, game in games], dtype=np.int64),
        right_B=np.array([place[game.right_policy] for _, game in games], dtype=np.int64),
        p_left_B=np.array([game.p_left for _, game in games], dtype=np.float64),
        prompt_B=np.array([prompts[prompt] for prompt, _ in games], dtype=np.int64),
        n_policies=len(names),
    )


def _rank_range(bounds: RatingIntervals, row: int) -> tuple[int, int]:
    """The best and worst place (1-based) a policy may hold, given who is surely above and surely below it."""
    above = int((bounds.better_MM[:, row] >= CERTAIN).sum())
    below = int((bounds.better_MM[row] >= CERTAIN).sum())
    return 1 + above, len(bounds.better_MM) - below


def _win_rates(games: list[_Game], order: list[str], seeds: Seeds) -> dict[tuple[str, str], WinRate]:
    """How often each policy beat each other one it met, rows and columns in `order`."""
    met: dict[tuple[str, str], list[tuple[str, float]]] = {}
    for prompt, game in games:
        if game.left_policy > game.right_policy:
            game = game.swap()
        met.setdefault((game.left_policy, game.right_policy), []).append((prompt, game.p_left))
    rates: dict[tuple[str, str], WinRate] = {}
    for (a, b), outcomes in met.items():
        seed = seeds.integer("win rate", a, b)
        rates[a, b] = win_rate([score for _, score in outcomes], [prompt for prompt, _ in outcomes], seed=seed)
        rates[b, a] = rates[a, b].swap()
    return {(a, b): rates[a, b] for a in order for b in order if (a, b) in rates}
