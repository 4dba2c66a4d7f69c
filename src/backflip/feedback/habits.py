"""Two habits at once: does the side that is shown first win, and does the longer text, each with the other held fixed?

`quality` has the share of pairs that each won; here both are effects in one logistic regression, so that a person who sees the
longer texts on the left more often is not accused twice. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from backflip.feedback.answers import LEFT, TIE, Answers, Floats
from backflip.maths.length_control import length_difference
from backflip.maths.logistic import logistic
from backflip.records import Query


class Effect(NamedTuple):
    """By how many nats the odds of winning rise, with the 95 % interval and the two-sided p-value; None without answers."""

    value: float | None
    low: float | None
    high: float | None
    p: float | None


@dataclass(frozen=True, slots=True)
class Habits:
    """What standing first and being longer do to the odds of winning, of one person or of all people.

    `first`: of the completion shown first, where two are equally long. `longer`: of a text that is longer by the `typical`
    difference (left − right)/(left + right) in characters, the root mean square over these pairs, wherever it stands; 0.2 is a
    text one and a half times as long. `n` pairs, ties among them, in `n_queries` questions.
    """

    name: str
    first: Effect
    longer: Effect
    typical: float
    n: int
    n_queries: int

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain JSON values."""
        return {
            "name": self.name, "first": self.first._asdict(), "longer": self.longer._asdict(), "typical": self.typical,
            "n": self.n, "n_queries": self.n_queries,
        }  # fmt: skip


def habits(answers: Answers, queries: Mapping[str, Query], *, people: Collection[str] | None = None) -> list[Habits]:
    """The habits of everybody together, named "everybody", and then of each labeler.

        P(i wins) = σ(s·first + d·longer/typical),   s = ±1 by which was shown first,   d = (|i| − |j|)/(|i| + |j|)

    over the answers to pairs (for clips, boards and mere names of policies d is 0), a tie half a win each way, a weak prior
    (`maths.ratings.RIDGE`) on both effects, and intervals that take the question for what was drawn at random. `answers` are
    what `answers.read` made of verdicts on `queries`; everybody is `people` (None: all labelers). That the longer text wins is a
    habit only if length is no merit: the effect says that it is there, not that it is wrong.
    """
    texts = np.array([_has_lengths(queries[query_id]) for query_id in answers.query_ids], dtype=bool)
    size_U2 = np.array(
        [
            [len(queries[answers.query_ids[q]].completions[k]) for k in (i, j)]
            for q, i, j in zip(answers.query_U.tolist(), answers.i_U.tolist(), answers.j_U.tolist(), strict=True)
        ],
        dtype=np.float64,
    ).reshape(-1, 2)
    d_U = length_difference(size_U2[:, 0], size_U2[:, 1])
    shown_N = np.array([verdict.shown_first for verdict in answers.verdicts], dtype=np.int64)[answers.verdict_N]
    s_N = (shown_N == answers.i_U[answers.unit_N]).astype(np.float64) - (shown_N == answers.j_U[answers.unit_N])
    d_N, query_N = d_U[answers.unit_N], answers.query_U[answers.unit_N]
    p_N = np.where(answers.category_N == TIE, 0.5, (answers.category_N == LEFT).astype(np.float64))
    d_N = np.where(texts[query_N], d_N, 0.0)
    kept_N = np.ones(len(p_N), dtype=bool)
    rater_N = answers.rater_N
    everybody_N = np.array([people is None or name in people for name in answers.names], dtype=bool)[rater_N]
    found = [_fit("everybody", kept_N & everybody_N, s_N, d_N, p_N, query_N)]
    return found + [_fit(name, kept_N & (rater_N == r), s_N, d_N, p_N, query_N) for r, name in enumerate(answers.names)]


def _has_lengths(query: Query) -> bool:
    """Whether the completions are texts, and not names that stand for texts nobody gave us."""
    return query.form == "text" and query.completions != query.policies


def _fit(name: str, kept_N: Any, s_N: Floats, d_N: Floats, p_N: Floats, query_N: Any) -> Habits:
    s, d, p, query = s_N[kept_N], d_N[kept_N], p_N[kept_N], query_N[kept_N]
    none = Effect(None, None, None, None)
    n_queries = len(np.unique(query))
    typical = float(np.sqrt((d**2).mean())) if len(d) else 0.0
    if not len(p):
        return Habits(name, none, none, typical, 0, 0)
    columns = np.column_stack([s, d / typical if typical > 0 else d])
    fit = logistic(columns, p, cluster_N=query)
    first, longer = (
        Effect(*(float(column[k]) for column in (fit.coef_F, fit.low_F, fit.high_F, fit.p_F))) if columns[:, k].any() else none
        for k in (0, 1)
    )
    return Habits(name, first, longer, typical, len(p), n_queries)
