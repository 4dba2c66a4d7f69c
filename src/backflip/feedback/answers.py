"""Verdicts as columns of numbers, so that a hundred thousand of them can be counted in a blink.

Shapes: V verdicts that answer, N answers to pairs (a verdict on K completions holds C(K, 2) of them), U units (the pairs of
every query), Q queries, R labelers. Imports no torch.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from backflip.errors import DataError
from backflip.records import Query, Verdict

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

LEFT, TIE, RIGHT = 0, 1, 2
ANSWERS = ("left", "tie", "right")
"""What an answer to the pair (i, j), i < j, can be: i is better, neither, j is better."""

Expected = str | Sequence[Sequence[int]]
"""A known answer: "left", "right", "tie", or a ranking as in `Verdict`."""


@dataclass(frozen=True, eq=False)
class Answers:
    """Standing verdicts as columns.

    `names` are the labelers, sorted; `verdicts` those that answer, one per labeler and query; `skips_R` counts the others.
    Verdict v holds `width_V[v]` answers from `start_V[v]` on. Unit u is the pair (`i_U`, `j_U`) of a query, and `longer_U` says
    which of its texts is longer: 1 the first, −1 the second, 0 neither, or they are no texts. `right_N` is the known answer, −1
    where none is. `repeats` are a labeler, how many answers stayed the same, and of how many, for every query that was answered
    again.
    """

    names: list[str]
    verdicts: list[Verdict]
    query_ids: list[str]
    rater_V: Ints
    query_V: Ints
    start_V: Ints
    width_V: Ints
    skips_R: Ints
    verdict_N: Ints
    unit_N: Ints
    category_N: Ints
    right_N: Ints
    query_U: Ints
    i_U: Ints
    j_U: Ints
    longer_U: Ints
    repeats: tuple[Ints, Ints, Ints]

    @property
    def rater_N(self) -> Ints:
        """Whose answer it is."""
        return self.rater_V[self.verdict_N]

    def counts(self, kept_N: Bools) -> Floats:
        """How many of the answers kept say left, tie and right of each unit, (U, 3)."""
        cells = self.unit_N[kept_N] * 3 + self.category_N[kept_N]
        return np.bincount(cells, minlength=len(self.query_U) * 3).reshape(-1, 3).astype(np.float64)

    def per_verdict(self, kept_N: Bools, hit_N: Bools) -> tuple[Floats, Floats]:
        """How many of the answers kept are hits, and how many there are, for each verdict."""
        v = len(self.verdicts)
        hits_V = np.bincount(self.verdict_N[kept_N & hit_N], minlength=v)
        return hits_V.astype(np.float64), np.bincount(self.verdict_N[kept_N], minlength=v).astype(np.float64)


def read(
    queries: Iterable[Query] | Mapping[str, Query],
    verdicts: Iterable[Verdict],
    gold: Mapping[str, Expected],
    repeats: Iterable[Sequence[Any]],
) -> Answers:
    """The columns of verdicts on `queries`; see `quality.quality` for the arguments. Raises DataError for what does not fit."""
    known = queries if isinstance(queries, Mapping) else {query.id: query for query in queries}
    given = [verdict for verdict in verdicts if verdict.query_id in known]
    again = [(row[-2], row[-1]) for row in repeats if row[-2].query_id in known]
    query_V, query_ids = _numbered(map(attrgetter("query_id"), given))
    labeler, names = _numbered(map(attrgetter("annotator"), [*given, *(first for first, _ in again)]))
    order = sorted(range(len(names)), key=names.__getitem__)
    rater = np.argsort(np.array(order, dtype=np.int64))[labeler]
    rater_V, again_rater = rater[: len(given)], rater[len(given) :]
    # Of several verdicts by one labeler on one query the last stands.
    _, backwards = np.unique((query_V * max(1, len(names)) + rater_V)[::-1], return_index=True)
    if len(backwards) < len(given):
        last = np.sort(len(given) - 1 - backwards)
        given, rater_V, query_V = [given[v] for v in last.tolist()], rater_V[last], query_V[last]

    asked = [known[query_id] for query_id in query_ids]
    patterns = _Patterns()
    said_V = patterns.numbers(given, asked, query_V)
    right_Q = np.full(len(asked), -1, dtype=np.int64)
    for q, query_id in enumerate(query_ids):
        if query_id in gold:
            right_Q[q] = _known(query_id, gold[query_id], asked[q], patterns)
    repeated = [_repeated(first, second, known[first.query_id], patterns) for first, second in again]
    same, total = np.array(repeated, dtype=np.int64).reshape(-1, 2).T
    width, start, flat = patterns.columns()

    skips_R = np.bincount(rater_V[width[said_V] == 0], minlength=len(names))
    answering = np.flatnonzero(width[said_V])
    if len(answering) < len(given):
        given = [given[v] for v in answering.tolist()]
        rater_V, query_V, said_V = rater_V[answering], query_V[answering], said_V[answering]
    width_V = width[said_V]
    start_V = np.cumsum(width_V) - width_V
    verdict_N = np.repeat(np.arange(len(given)), width_V)
    offset_N = np.arange(len(verdict_N)) - start_V[verdict_N]
    right_N = np.full(len(verdict_N), -1, dtype=np.int64)
    right_V = right_Q[query_V]
    gold_N = right_V[verdict_N] >= 0
    right_N[gold_N] = flat[start[right_V[verdict_N[gold_N]]] + offset_N[gold_N]]
    query_U, i_U, j_U, longer_U = _units(asked)
    first_Q = np.searchsorted(query_U, np.arange(len(asked)))
    return Answers(
        names=[names[i] for i in order],
        verdicts=given,
        query_ids=query_ids,
        rater_V=rater_V,
        query_V=query_V,
        start_V=start_V,
        width_V=width_V,
        skips_R=skips_R,
        verdict_N=verdict_N,
        unit_N=first_Q[query_V][verdict_N] + offset_N,
        category_N=flat[start[said_V][verdict_N] + offset_N],
        right_N=right_N,
        query_U=query_U,
        i_U=i_U,
        j_U=j_U,
        longer_U=longer_U,
        repeats=(again_rater, same, total),
    )


class _Patterns:
    """What verdicts say about the pairs of their query, each way of saying it once.

    What `Verdict.comparisons` believes follows from the answer and the number of completions, whatever the texts are, and a
    hundred thousand verdicts say it in a few dozen ways.
    """

    _answer = attrgetter("choice", "ranking", "scores", "strength", "code")

    def __init__(self) -> None:
        self._known: dict[tuple[object, int], int] = {}
        self.said: list[tuple[int, ...]] = []

    def number(self, verdict: Verdict, query: Query) -> int:
        """The number of what a verdict says."""
        key = (self._answer(verdict), len(query.completions))
        if key not in self._known:
            try:
                beliefs = [comparison.p_left for comparison in verdict.comparisons(query)]
            except ValueError as problem:
                raise DataError(f"answer of {verdict.annotator!r} to query {verdict.query_id}: {problem}") from problem
            self._known[key] = len(self.said)
            self.said.append(tuple(LEFT if p > 0.5 else RIGHT if p < 0.5 else TIE for p in beliefs))
        return self._known[key]

    def numbers(self, verdicts: Sequence[Verdict], queries: Sequence[Query], query_V: Ints) -> Ints:
        """The same for many, verdict v on query `query_V[v]`."""
        said_V, _ = _numbered(map(self._answer, verdicts))
        k_V = np.array([len(query.completions) for query in queries], dtype=np.int64)[query_V]
        _, first, which_V = np.unique(said_V * (k_V.max(initial=0) + 1) + k_V, return_index=True, return_inverse=True)
        return np.array([self.number(verdicts[v], queries[query_V[v]]) for v in first], dtype=np.int64)[which_V]

    def columns(self) -> tuple[Ints, Ints, Ints]:
        """How many answers each pattern holds, where they start in the list of all answers, and that list."""
        width = np.array([len(said) for said in self.said], dtype=np.int64)
        flat = np.fromiter(itertools.chain.from_iterable(self.said), np.int64, int(width.sum()))
        return width, np.cumsum(width) - width, flat


T = TypeVar("T", bound=Hashable)


def _numbered(names: Iterable[T]) -> tuple[Ints, list[T]]:
    """Each name as a number, and the names in the order of their first appearance."""
    place: defaultdict[T, int] = defaultdict(itertools.count().__next__)
    return np.fromiter(map(place.__getitem__, names), np.int64), list(place)


def _known(query_id: str, expected: Expected, query: Query, patterns: _Patterns) -> int:
    """The number of what a known answer says."""
    try:
        if isinstance(expected, str):
            verdict = Verdict(query_id, "gold", expected)  # type: ignore[arg-type]
        else:
            verdict = Verdict(query_id, "gold", "ranking", tuple(tuple(group) for group in expected))
    except (TypeError, ValueError) as problem:
        raise DataError(f"the known answer to query {query_id}: {problem}") from problem
    number = patterns.number(verdict, query)
    if not patterns.said[number]:
        raise DataError(f"the known answer to query {query_id} is {expected!r}; use left, right, tie or a ranking")
    return number


def _repeated(first: Verdict, second: Verdict, query: Query, patterns: _Patterns) -> tuple[int, int]:
    """How many answers stayed the same, and of how many: (0, 0) when one of the two is a skip."""
    a, b = patterns.said[patterns.number(first, query)], patterns.said[patterns.number(second, query)]
    return (sum(x == y for x, y in zip(a, b, strict=True)), len(a)) if a and b else (0, 0)


def _units(queries: Sequence[Query]) -> tuple[Ints, Ints, Ints, Ints]:
    """Of each pair of completions of each query: the query's number, the two indices, and which text is longer."""
    k_Q = np.array([len(query.completions) for query in queries], dtype=np.int64)
    size = np.fromiter(map(len, itertools.chain.from_iterable(map(attrgetter("completions"), queries))), np.int64)
    pairs = {k: np.array(list(itertools.combinations(range(k), 2)), dtype=np.int64) for k in set(k_Q.tolist())}
    query_U = np.repeat(np.arange(len(queries)), k_Q * (k_Q - 1) // 2)
    ij_U2 = np.empty((len(query_U), 2), dtype=np.int64)
    k_U = k_Q[query_U]
    for k, ij in pairs.items():
        ij_U2[k_U == k] = np.tile(ij, (int((k_Q == k).sum()), 1))
    i_U, j_U = ij_U2.T
    text_Q = np.array([query.form == "text" for query in queries], dtype=bool)
    first_U = (np.cumsum(k_Q) - k_Q)[query_U]
    longer_U = np.sign(size[first_U + i_U] - size[first_U + j_U]) * text_Q[query_U]
    return query_U, i_U, j_U, longer_U
