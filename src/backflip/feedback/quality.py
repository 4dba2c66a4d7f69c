"""How good are the answers? Agreement, bias, speed and consistency, of everybody and of each labeler, never without an interval.

Every pair (i < j) of a query's completions is a unit, and a verdict answers it with left, tie or right, by what
`Verdict.comparisons` says. The pairs of one query were not drawn independently: every interval treats the query as what was
drawn at random. See docs/agreement.md for what each figure means. Imports no torch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from backflip.feedback.answers import ANSWERS, LEFT, TIE, Answers, Bools, Expected, Floats, Ints, read
from backflip.feedback.figures import Agreement, Bias, Contested, Opinion, Pair, Quality, Rater, Words
from backflip.maths.agreement import NO_OVERLAP, Tally, gwet_ac, krippendorff_alpha, percent_agreement
from backflip.maths.crowds import dawid_skene
from backflip.maths.ratings import Z95, wilson
from backflip.maths.shares import Share, binomial_p, columns_of_shares, shares
from backflip.records import Query, Verdict
from backflip.seeds import Seeds
from backflip.store.events import Event

CONTESTED = 50
"""How many of the units on which people differ most are listed."""
STRONG, MODERATE = 0.8, 0.667
"""α and AC₁ from which agreement is called strong, or moderate (Krippendorff 2004, chapter 11)."""
RAW_STRONG, RAW_MODERATE = 0.9, 0.75
"""The same for raw agreement, from which chance is not taken away."""
FEW = 6
"""Units below which no agreement is told from luck: five coins fall on one side with a chance of 1 in 16."""
CHUNK = 1_000_000  # pairs of verdicts counted at once


def quality(
    queries: Iterable[Query] | Mapping[str, Query],
    verdicts: Iterable[Verdict],
    *,
    seeds: Seeds,
    events: Iterable[Event] = (),
    gold: Mapping[str, Expected] | None = None,
    repeats: Iterable[Sequence[Any]] = (),
    people: Collection[str] | None = None,
) -> Quality:
    """What standing verdicts say about their quality.

    `queries` are what was asked; a mapping by id saves working the ids out, which takes longer than all the rest. Verdicts on
    other queries are left out, and of several by one labeler on one query the last counts. `gold` maps the id of a query to the
    answer it deserves: "left", "right", "tie", or a ranking as in `Verdict`; such queries say how accurate labelers are and,
    being chosen for their clear answers, are left out of everything about agreement. `repeats` holds rows that end with two
    verdicts, the first and the second of one labeler on one query (`Store.repeats` gives them). `people` are the labelers who
    count for the figures of all and for the consensus (None: everybody); judges and reward models are measured against them. Of
    `events` only those of kind "adjudicate" with a `query_id` in their payload matter. `seeds` settle the bootstrap.

    Raises DataError for a verdict or a known answer that does not fit its query.
    """
    answers = read(queries, verdicts, gold or {}, repeats)
    person_R = np.array([people is None or name in people for name in answers.names], dtype=bool)
    judged_N = answers.right_N < 0  # answers to questions without a known answer
    counts_UC = answers.counts(judged_N & person_R[answers.rater_N])
    answered_U = counts_UC.sum(axis=1)
    cluster_U = None if len(answers.query_U) == len(answers.query_ids) else answers.query_U
    found = Tally(counts_UC, np.array([0.0, 0.5, 1.0]), cluster_U)
    overall = found.only(answered_U > 0)
    rng = seeds.numpy("quality", "bootstrap")
    raw = percent_agreement(overall)
    share_C = counts_UC.sum(axis=0) / max(1.0, float(counts_UC.sum()))
    return Quality(
        alpha_nominal=_agreement(krippendorff_alpha(overall, "nominal", rng=rng), 0.0, STRONG, MODERATE),
        alpha_ordinal=_agreement(krippendorff_alpha(overall, "ordinal", rng=rng), 0.0, STRONG, MODERATE),
        ac1=_agreement(gwet_ac(overall), 0.0, STRONG, MODERATE),
        raw=_agreement(raw, float(share_C @ share_C), RAW_STRONG, RAW_MODERATE),
        n_units=len(overall.counts_UC),
        n_overlapping=int((answered_U >= 2).sum()),
        raters=_raters(answers, counts_UC, person_R, judged_N),
        pairs=_pairs(answers),
        contested=_contested(answers, counts_UC, judged_N, events),
    )


def _agreement(figure: Any, chance: float, strong: float, moderate: float) -> Agreement:
    value, low = figure.value, figure.low
    words: Words
    if value is None:
        words = "undefined"
    elif low <= chance or figure.n_units < FEW:
        words = "agree_none"
    else:
        words = "agree_strong" if value >= strong else "agree_moderate" if value >= moderate else "agree_little"
    why_key = ("no_overlap" if figure.why == NO_OVERLAP else "one_category") if figure.why else ""
    return Agreement(value, low, figure.high, figure.n_units, figure.n_pairs, words, figure.why, why_key)


# ------------------------------------------------------------------------------------------------- each labeler


def _raters(answers: Answers, counts_UC: Floats, person_R: Bools, judged_N: Bools) -> tuple[Rater, ...]:
    n, rater_V, category_N = len(answers.names), answers.rater_V, answers.category_N

    def share(kept_N: Bools, hit_N: Bools) -> list[Share]:
        return shares(rater_V, *answers.per_verdict(kept_N, hit_N), n)

    def bias(mark_N: Ints) -> list[Bias]:
        """The share of decided pairs that the marked completion won: 1 marks the first, −1 the second, 0 neither."""
        kept_N = (category_N != TIE) & (mark_N != 0)
        hits_V, totals_V = answers.per_verdict(kept_N, (category_N == LEFT) == (mark_N == 1))
        # The pairs of one ranking are no throws of a coin, but which side has most of them is one.
        ahead_V = np.sign(2 * hits_V - totals_V)
        won_R, lost_R = (np.bincount(rater_V[ahead_V == side], minlength=n).tolist() for side in (1, -1))
        found = shares(rater_V, hits_V, totals_V, n)
        return [
            Bias(*s, None if s.n == 0 else binomial_p(won, won + lost)) for s, won, lost in zip(found, won_R, lost_R, strict=True)
        ]

    shown_N = np.fromiter(map(attrgetter("shown_first"), answers.verdicts), np.int64)[answers.verdict_N]
    first_N = (shown_N == answers.i_U[answers.unit_N]).astype(np.int64) - (shown_N == answers.j_U[answers.unit_N])
    consensus = share(*_consensus(answers, counts_UC, person_R, judged_N))
    known = share(answers.right_N >= 0, category_N == answers.right_N)
    left, longer = bias(first_N), bias(answers.longer_U[answers.unit_N])
    medians, consistency, reliability = _medians(answers), shares(*answers.repeats, n), _reliability(answers, judged_N)
    n_answers = np.bincount(rater_V, minlength=n).tolist()
    return tuple(
        Rater(
            name=name,
            person=bool(person_R[r]),
            n_answers=n_answers[r],
            n_skips=int(answers.skips_R[r]),
            consensus=consensus[r],
            gold=known[r],
            left=left[r],
            longer=longer[r],
            median_ms=medians[r],
            consistency=consistency[r],
            reliability=reliability[r],
        )
        for r, name in enumerate(answers.names)
    )


def _consensus(answers: Answers, counts_UC: Floats, person_R: Bools, judged_N: Bools) -> tuple[Bools, Bools]:
    """Where the other people have one answer that most of them gave, and where that is this answer."""
    others_NC = counts_UC[answers.unit_N]
    own_N = np.flatnonzero(judged_N & person_R[answers.rater_N])
    others_NC[own_N, answers.category_N[own_N]] -= 1
    most_N = others_NC.max(axis=1, initial=0.0)
    one_N = (others_NC == most_N[:, None]).sum(axis=1) == 1
    return judged_N & one_N & (most_N > 0), others_NC.argmax(axis=1) == answers.category_N


def _reliability(answers: Answers, judged_N: Bools) -> list[Share]:
    """How often each labeler would be right, by Dawid & Skene, from the units that two or more answered."""
    n = len(answers.names)
    twice_U = answers.counts(judged_N).sum(axis=1) >= 2
    kept_N = judged_N & twice_U[answers.unit_N]
    if not kept_N.any():
        return [Share(None, None, None, 0)] * n
    _, unit_N = np.unique(answers.unit_N[kept_N], return_inverse=True)
    rater_N = answers.rater_N[kept_N]
    fit = dawid_skene(
        unit_N, rater_N, answers.category_N[kept_N], n_units=int(unit_N.max()) + 1, n_raters=n, n_categories=len(ANSWERS),
        smoothing=1 / len(ANSWERS), tolerance=1e-3, limit=max(12, 3_000_000 // len(unit_N)),
    )  # fmt: skip
    answers_R = np.bincount(rater_N, minlength=n).tolist()
    # Pairs of one query count as one answer for the interval: what a labeler gets right in a ranking hangs together.
    queries_R = np.bincount(
        answers.rater_V[np.bincount(answers.verdict_N[kept_N], minlength=len(answers.verdicts)) > 0], minlength=n
    ).tolist()
    return [
        Share(p, *wilson(p, k), m) if m else Share(None, None, None, 0)
        for p, k, m in zip(fit.reliability_R.tolist(), queries_R, answers_R, strict=True)
    ]


def _medians(answers: Answers) -> list[Share]:
    """The median time of each labeler, with the 95 % interval between order statistics (of fewer than six: the range)."""
    ms_V = np.fromiter(map(attrgetter("ms"), answers.verdicts), np.float64, len(answers.verdicts))
    timed_V = ms_V > 0
    rater, ms = answers.rater_V[timed_V], ms_V[timed_V]
    ms = ms[np.lexsort((ms, rater))]
    found, end = [], 0
    for count in np.bincount(rater, minlength=len(answers.names)).tolist():
        own, end = ms[end : end + count], end + count
        if count == 0:
            found.append(Share(None, None, None, 0))
            continue
        # Of n values, n/2 ± 1.96·√n/2 lie below the median.
        low = max(0, math.floor((count - Z95 * math.sqrt(count)) / 2) - 1)
        found.append(Share(float(np.median(own)), float(own[low]), float(own[count - 1 - low]), count))
    return found


# ------------------------------------------------------------------------------------------------- each two, and the units


def _pairs(answers: Answers) -> tuple[Pair, ...]:
    """Agreement of every two labelers on the queries that both answered; every query is a cluster."""
    n = len(answers.names)
    judged_V = np.ones(len(answers.verdicts), dtype=bool)
    judged_V[answers.verdict_N[answers.right_N >= 0]] = False
    kept = np.flatnonzero(judged_V)
    kept = kept[np.lexsort((answers.rater_V[kept], answers.query_V[kept]))]
    query, rater, start, width = (c[kept] for c in (answers.query_V, answers.rater_V, answers.start_V, answers.width_V))
    m_Q = np.bincount(query)
    dense = n * len(m_Q) * len(ANSWERS) < (m_Q * (m_Q - 1)).sum() and bool(np.all(width == 1))
    keys, sums = (_all_met if dense else _each_met)(query, rater, start, width, answers.category_N, n)
    met = np.flatnonzero(sums[2])
    a, b = divmod(keys[met], n)
    found = columns_of_shares(*sums[:, met])
    names = [[answers.names[i] for i in side.tolist()] for side in (a, b)]
    numbers = (found.value_G, found.low_G, found.high_G, found.n_G.astype(np.int64))
    return tuple(itertools.starmap(Pair, zip(*names, *(column.tolist() for column in numbers), strict=True)))


def _each_met(query: Ints, rater: Ints, start: Ints, width: Ints, category_N: Ints, n: int) -> tuple[Ints, Floats]:
    """The sums that `columns_of_shares` takes for each two labelers n·a + b, a < b, from every two verdicts on one query."""
    chunks: list[tuple[Ints, Floats]] = [(np.zeros(0, dtype=np.int64), np.zeros((6, 0)))]
    rows: list[tuple[Ints, Ints]] = []
    first, apart = np.arange(len(query)), 0
    while len(first):
        # Verdicts on one query stand together: those `apart` places away are further pairs, until no query is as long.
        apart += 1
        first = first[first + apart < len(query)]
        first = first[query[first] == query[first + apart]]
        rows.append((first, first + apart))
        if not len(first) or sum(len(a) for a, _ in rows) > CHUNK:
            a, b = (np.concatenate(side) for side in zip(*rows, strict=True))
            hits, total = _alike(category_N, start[a], start[b], width[a]), width[a].astype(np.float64)
            columns = np.stack([np.ones(len(a)), hits, total, hits * hits, hits * total, total * total])
            chunks.append(_collapse(rater[a] * n + rater[b], columns, n * n))
            rows = []
    keys, columns = (np.concatenate(parts, axis=-1) for parts in zip(*chunks, strict=True))
    return _collapse(keys, columns, n * n)


def _all_met(query: Ints, rater: Ints, start: Ints, width: Ints, category_N: Ints, n: int) -> tuple[Ints, Floats]:
    """The same by one product of matrices, where most labelers answered most queries, all of `width` 1."""
    place, q = query * len(ANSWERS) + category_N[start], int(query.max()) + 1
    said_RY = np.zeros((n, q * len(ANSWERS)), dtype=np.float32)
    said_RY[rater, place] = 1
    asked_RQ = said_RY.reshape(n, q, len(ANSWERS)).sum(axis=2)
    hits, total = (np.triu(x @ x.T, 1).astype(np.float64).ravel() for x in (said_RY, asked_RQ))
    return np.arange(n * n), np.stack([total, hits, total, hits, hits, width[0] * total])


def _alike(category_N: Ints, a_P: Ints, b_P: Ints, width_P: Ints) -> Floats:
    """How many answers of two verdicts are the same; their answers start at `a_P` and `b_P`."""
    alike_P: Floats = (category_N[a_P] == category_N[b_P]).astype(np.float64)
    for step in range(1, int(width_P.max(initial=0))):
        longer = np.flatnonzero(width_P > step)
        alike_P[longer] += category_N[a_P[longer] + step] == category_N[b_P[longer] + step]
    return alike_P


def _collapse(keys_P: Ints, columns_SP: Floats, n_keys: int) -> tuple[Ints, Floats]:
    """The columns added up for each key."""
    keys, place_P = (np.arange(n_keys), keys_P) if n_keys <= CHUNK else np.unique(keys_P, return_inverse=True)
    return keys, np.stack([np.bincount(place_P, weights=column, minlength=len(keys)) for column in columns_SP])


def _contested(answers: Answers, counts_UC: Floats, judged_N: Bools, events: Iterable[Event]) -> tuple[Contested, ...]:
    """The units on which people differ most: by entropy, then by how many answered; those settled by somebody last."""
    settled = {event.payload.get("query_id"): event.payload for event in events if event.kind == "adjudicate"}
    differ = np.flatnonzero((counts_UC > 0).sum(axis=1) >= 2)
    total = counts_UC[differ].sum(axis=1)
    p = counts_UC[differ] / total[:, None]
    entropy = -(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=1)
    done_Q = np.array([query_id in settled for query_id in answers.query_ids], dtype=bool)
    done = done_Q[answers.query_U[differ]]
    top = np.lexsort((differ, -total, -np.round(entropy, 9), done))[:CONTESTED]
    opinions: dict[int, list[Opinion]] = {int(unit): [] for unit in differ[top]}
    listed_U = np.zeros(len(counts_UC), dtype=bool)
    listed_U[differ[top]] = True
    for n in np.flatnonzero(judged_N & listed_U[answers.unit_N]).tolist():
        verdict = answers.verdicts[answers.verdict_N[n]]
        opinions[int(answers.unit_N[n])].append(Opinion(verdict.annotator, ANSWERS[answers.category_N[n]], verdict))
    found = []
    for unit, h in zip(differ[top].tolist(), entropy[top].tolist(), strict=True):
        query_id = answers.query_ids[answers.query_U[unit]]
        counts = dict(zip(ANSWERS, counts_UC[unit].astype(int).tolist(), strict=True))
        pair = (int(answers.i_U[unit]), int(answers.j_U[unit]))
        found.append(Contested(query_id, pair, counts, h, tuple(opinions[unit]), settled.get(query_id)))
    return tuple(found)
