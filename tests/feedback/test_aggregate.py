"""Many answers made one: each method by hand on a small table, careless people lose their say, and nothing invents an answer."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backflip.errors import DataError, UserError
from backflip.feedback.aggregate import METHODS, Method, aggregate
from backflip.feedback.readers import read_comparisons
from backflip.maths.soft_labels import entropy, soft_fit
from backflip.records import Prompt, Query, Verdict
from backflip.seeds import Seeds

CODE: dict[str, Any] = {"l": "left", "r": "right", "t": "tie", "s": "skip"}


def table(**rows: str) -> tuple[dict[str, Query], list[Verdict]]:
    """What each labeler said of each question in order: l, r, t, s, or a dot for nothing."""
    queries = [Query(Prompt(f"p{i}"), ("a", "b")) for i in range(max(map(len, rows.values())))]
    verdicts = [
        Verdict(query.id, name, CODE[said])
        for name, row in rows.items()
        for query, said in zip(queries, row, strict=False)
        if said != "."
    ]
    return {query.id: query for query in queries}, verdicts


def test_shares_and_majority_by_hand() -> None:
    queries, verdicts = table(ann="lltr.", ben="lrtl.", cai="llts.")
    shares, majority = aggregate(queries, verdicts, "shares"), aggregate(queries, verdicts, "majority")
    assert [c.p_left for c in shares.comparisons] == pytest.approx([1, 2 / 3, 0.5, 0.5])
    assert [c.p_left for c in majority.comparisons] == [1, 1, 0.5, 0.5]
    assert [u.counts for u in shares.units] == [(3, 0, 0), (2, 0, 1), (0, 3, 0), (1, 0, 1)]
    assert [u.entropy for u in shares.units] == pytest.approx([0, entropy([[2 / 3, 0, 1 / 3]])[0], 0, math.log(2)])
    assert shares.reliability == {}
    assert {c.annotator for c in majority.comparisons} == {"aggregate:majority"}


def test_a_ranking_is_its_pairs_and_they_share_one_weight() -> None:
    query = Query(Prompt("p"), ("a", "b", "c"), ("x", "y", "z"))
    verdicts = [
        Verdict(query.id, "ann", "ranking", ranking=((0,), (1,), (2,))),
        Verdict(query.id, "ben", "ranking", ranking=((1,), (0, 2))),
    ]
    found = aggregate({query.id: query}, verdicts)
    assert [(c.left, c.right, c.p_left) for c in found.comparisons] == [("a", "b", 0.5), ("a", "c", 0.75), ("b", "c", 1.0)]
    assert [c.weight for c in found.comparisons] == pytest.approx([1 / 3] * 3)
    assert [(c.left_policy, c.right_policy) for c in found.comparisons] == [("x", "y"), ("x", "z"), ("y", "z")]


@pytest.mark.parametrize("method", ["dawid-skene", "one-coin", "noisy-bt"])
def test_planted_reliabilities_are_found_and_who_guesses_loses_their_say(method: Method) -> None:
    rng = Seeds(3).numpy("crowd")
    reliability = {f"labeler {r:02d}": float(x) for r, x in enumerate(np.linspace(0.55, 0.98, 12))}
    queries = [Query(Prompt(f"p{i}"), ("a", "b")) for i in range(600)]
    truth = rng.random(600) < 0.5
    verdicts = []
    for query, left in zip(queries, truth, strict=True):
        for name in rng.choice(sorted(reliability), 5, replace=False).tolist():
            right = rng.random() < reliability[name]
            verdicts.append(Verdict(query.id, name, "left" if right == left else "right", shown_first=int(rng.integers(2))))
    known = {query.id: query for query in queries}
    found = aggregate(known, verdicts, method)
    assert found.converged
    names = sorted(reliability)
    r = np.corrcoef([reliability[n] for n in names], [found.reliability[n] for n in names])[0, 1]
    # Noisy Bradley–Terry knows each pair's strengths from five answers alone here, and has a habit to tell from them besides.
    assert r >= (0.8 if method == "noisy-bt" else 0.9)
    plain = aggregate(known, verdicts, "majority")

    def right(comparisons: Any) -> float:
        return float(np.mean([(c.p_left > 0.5) == truth[queries.index(known[c.query_id])] for c in comparisons]))

    assert right(found.comparisons) >= right(plain.comparisons)


def test_a_labeler_who_clicks_one_side_of_the_screen_is_seen_through() -> None:
    rng = Seeds(4).numpy("clicker")
    queries, verdicts = [Query(Prompt(f"p{i}"), ("a", "b")) for i in range(300)], []
    for i, query in enumerate(queries):
        for name in ("ann", "ben", "cai"):
            verdicts.append(Verdict(query.id, name, "left" if (i % 2 == 0) == (rng.random() < 0.85) else "right", shown_first=1))
        first = int(rng.integers(2))
        verdicts.append(Verdict(query.id, "clicker", "left" if first == 0 else "right", shown_first=first))
    found = aggregate({query.id: query for query in queries}, verdicts, "noisy-bt")
    assert found.reliability["clicker"] < 0.35
    assert min(found.reliability[name] for name in ("ann", "ben", "cai")) > 0.6


@given(st.lists(st.text("lrts.", min_size=3, max_size=3), min_size=1, max_size=4), st.sampled_from(METHODS))
def test_every_belief_is_one_and_turning_all_answers_turns_all_beliefs(rows: list[str], method: Method) -> None:
    queries, verdicts = table(**{f"r{i}": row for i, row in enumerate(rows)})
    if not any(said in "lrt" for row in rows for said in row):
        with pytest.raises(DataError, match="nothing to aggregate"):
            aggregate(queries, verdicts, method)
        return
    found = aggregate(queries, verdicts, method)
    assert all(0 <= c.p_left <= 1 for c in found.comparisons)
    turned = str.maketrans("lr", "rl")
    back = aggregate(*table(**{f"r{i}": row.translate(turned) for i, row in enumerate(rows)}), method)
    if method != "noisy-bt":  # whose labelers have a side of the screen
        assert [1 - c.p_left for c in back.comparisons] == pytest.approx([c.p_left for c in found.comparisons], abs=1e-4)


def test_rows_are_read_back_as_comparisons(tmp_path: Path) -> None:
    queries, verdicts = table(ann="lrt", ben="llt")
    found = aggregate(queries, verdicts)
    path = tmp_path / "all.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in found.rows()))
    assert [c.p_left for c in read_comparisons(path)] == [1.0, 0.5, 0.5]
    assert json.loads(path.read_text().splitlines()[0])["answers"] == {"left": 2, "tie": 0, "right": 0}


def test_an_unknown_method_is_a_sentence() -> None:
    with pytest.raises(UserError, match="use shares, majority"):
        aggregate(*table(ann="l"), "mean")  # type: ignore[arg-type]
    assert get_args(Method) == METHODS


# ------------------------------------------------------------------------------------------------ label distributions


def test_the_loss_of_beliefs_is_divergence_and_entropy_by_hand() -> None:
    found = soft_fit([[3, 1], [0, 4]], [[0.5, 0.5], [0.25, 0.75]])
    nll = (-math.log(0.5) - math.log(0.75)) / 2
    h = (-0.75 * math.log(0.75) - 0.25 * math.log(0.25)) / 2
    assert (found.nll, found.entropy, found.kl) == pytest.approx((nll, h, nll - h))
    assert found.accuracy == 1.0  # the first of equal beliefs counts as the likeliest
    assert found.entropy_correlation == pytest.approx(1.0)
    perfect = soft_fit([[3, 1], [1, 3]], [[0.75, 0.25], [0.25, 0.75]])
    assert perfect.kl == pytest.approx(0, abs=1e-12)
    assert perfect.entropy_correlation is None
    assert soft_fit([[1, 1]], [[0.9, 0.1]]).accuracy is None


@pytest.mark.parametrize(
    ("counts", "belief", "message"),
    [([[0, 0]], [[0.5, 0.5]], "has an answer"), ([[1, 0]], [[0.5, 0.6]], "add up to 1"), ([[1, 0]], [[1.0]], "do not fit")],
)
def test_what_is_no_distribution_is_refused(counts: Any, belief: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        soft_fit(counts, belief)
