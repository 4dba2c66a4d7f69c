"""Many answers to a question made into one belief, by shares, by majority, or by who is to be believed. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from backflip.errors import DataError, UserError
from backflip.feedback.answers import ANSWERS, LEFT, TIE, Answers, Floats, read
from backflip.maths.crowds import dawid_skene, one_coin
from backflip.maths.logistic import sigmoid
from backflip.maths.noisy_bradley_terry import noisy_bradley_terry
from backflip.maths.soft_labels import entropy
from backflip.records import Comparison, Query, Verdict

Method = Literal["shares", "majority", "dawid-skene", "one-coin", "noisy-bt"]
METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True, slots=True)
class Unit:
    """One pair of completions of a query with everything that was said of it: how many said left, tie and right."""

    query_id: str
    pair: tuple[int, int]
    counts: tuple[int, int, int]
    entropy: float


@dataclass(frozen=True, slots=True)
class Aggregated:
    """One comparison for each pair, in the order of the questions, with what was said of it in `units`.

    `reliability` is how often each labeler is right (by Dawid & Skene and the one-coin model), or judges (by noisy
    Bradley–Terry); empty for methods that believe everybody alike. `converged` is False where an iteration was cut short.
    """

    method: Method
    comparisons: tuple[Comparison, ...]
    units: tuple[Unit, ...]
    reliability: Mapping[str, float]
    converged: bool

    def rows(self) -> list[dict[str, Any]]:
        """Rows for a file: a comparison as `readers.read_comparisons` takes it, and the distribution of answers in `answers`."""
        return [
            {**comparison.to_json(), "answers": dict(zip(ANSWERS, unit.counts, strict=True))}
            for comparison, unit in zip(self.comparisons, self.units, strict=True)
        ]


def aggregate(queries: Mapping[str, Query], verdicts: Sequence[Verdict], method: Method = "shares") -> Aggregated:
    """One belief `p_left` for each pair of completions that somebody answered.

        shares       (left + ½·ties)/answers: the distribution of answers itself
        majority     1, 0 or ½, by whether more said left or right
        dawid-skene  P(left) + ½·P(tie) by Dawid & Skene 1979, a confusion matrix for each labeler
        one-coin     the same with one number for each labeler (Zhang et al. 2014)
        noisy-bt     σ(θ_i − θ_j), strengths of completions from labelers who do not always judge (`maths.noisy_bradley_terry`)

    The pairs of one question share a weight of 1. Of several verdicts by one labeler on one query the last counts. Raises
    UserError for an unknown method and DataError where nobody has answered anything or a verdict does not fit its query.
    """
    if method not in METHODS:
        raise UserError(f"unknown method {method!r}; use {', '.join(METHODS)}")
    answers = read(queries, verdicts, {}, ())
    counts_U3 = answers.counts(np.ones(len(answers.unit_N), dtype=bool))
    answered_U = counts_U3.sum(axis=1) > 0
    if not answered_U.any():
        raise DataError("there is nothing to aggregate: no question has an answer that is not a skip")
    p_U, reliability, converged = _beliefs(method, answers, counts_U3, queries)
    pairs_Q = np.bincount(answers.query_U, minlength=len(answers.query_ids))
    entropy_U = entropy(counts_U3 / np.maximum(counts_U3.sum(axis=1, keepdims=True), 1))
    comparisons, units = [], []
    for u in np.flatnonzero(answered_U).tolist():
        query = queries[answers.query_ids[answers.query_U[u]]]
        i, j = int(answers.i_U[u]), int(answers.j_U[u])
        names = query.policies or ("",) * len(query.completions)
        comparisons.append(
            Comparison(
                query.prompt, query.completions[i], query.completions[j], p_left=min(1.0, max(0.0, float(p_U[u]))),
                weight=1.0 / int(pairs_Q[answers.query_U[u]]), annotator=f"aggregate:{method}",
                query_id=answers.query_ids[answers.query_U[u]], left_policy=names[i], right_policy=names[j],
            )
        )  # fmt: skip
        left, tie, right = (int(count) for count in counts_U3[u])
        units.append(Unit(comparisons[-1].query_id, (i, j), (left, tie, right), float(entropy_U[u])))
    return Aggregated(method, tuple(comparisons), tuple(units), reliability, converged)


def _beliefs(
    method: Method, answers: Answers, counts_U3: Floats, queries: Mapping[str, Query]
) -> tuple[Floats, dict[str, float], bool]:
    """p_left of every unit, the reliability of each labeler, and whether the iteration came to rest."""
    left_U, tie_U, right_U = counts_U3.T
    if method == "shares":
        return (left_U + tie_U / 2) / np.maximum(counts_U3.sum(axis=1), 1), {}, True
    if method == "majority":
        return 0.5 + 0.5 * np.sign(left_U - right_U), {}, True
    if method == "noisy-bt":
        return _noisy(answers, queries)
    fit_model = dawid_skene if method == "dawid-skene" else one_coin
    fit = fit_model(
        answers.unit_N, answers.rater_N, answers.category_N, n_units=len(answers.query_U), n_raters=len(answers.names),
        n_categories=len(ANSWERS), smoothing=1 / len(ANSWERS),
    )  # fmt: skip
    p_U: Floats = fit.posterior_UC[:, LEFT] + fit.posterior_UC[:, TIE] / 2
    return p_U, dict(zip(answers.names, fit.reliability_R.tolist(), strict=True)), fit.converged


def _noisy(answers: Answers, queries: Mapping[str, Query]) -> tuple[Floats, dict[str, float], bool]:
    """By strengths: a completion of a prompt is one item in however many questions it stands."""
    place: dict[tuple[str, str], int] = {}
    item_U2 = np.empty((len(answers.query_U), 2), dtype=np.int64)
    prompts = {query_id: queries[query_id].prompt.id for query_id in answers.query_ids}
    for u, (q, i, j) in enumerate(zip(answers.query_U.tolist(), answers.i_U.tolist(), answers.j_U.tolist(), strict=True)):
        query_id = answers.query_ids[q]
        for side, k in enumerate((i, j)):
            item_U2[u, side] = place.setdefault((prompts[query_id], queries[query_id].completions[k]), len(place))
    first_N = np.array([verdict.shown_first for verdict in answers.verdicts], dtype=np.int64)[answers.verdict_N]
    # The habit of a labeler is a side of the screen, not of the record.
    other_N = first_N == answers.j_U[answers.unit_N]
    left_N, right_N = item_U2[answers.unit_N].T
    p_N = np.where(answers.category_N == TIE, 0.5, (answers.category_N == LEFT).astype(np.float64))
    apart_N = left_N != right_N
    shown_left, shown_right = np.where(other_N, right_N, left_N), np.where(other_N, left_N, right_N)
    fit = noisy_bradley_terry(
        shown_left[apart_N], shown_right[apart_N], answers.rater_N[apart_N], np.where(other_N, 1 - p_N, p_N)[apart_N],
        n_items=max(1, len(place)), n_raters=max(1, len(answers.names)),
    )  # fmt: skip
    p_U = sigmoid(fit.theta_I[item_U2[:, 0]] - fit.theta_I[item_U2[:, 1]])
    return p_U, dict(zip(answers.names, fit.reliability_R.tolist(), strict=True)), fit.converged
