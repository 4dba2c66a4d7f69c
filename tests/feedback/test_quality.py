"""How good the answers are: small stores worked by hand, planted habits that are found, and the same whatever the order."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backflip.errors import DataError
from backflip.feedback.answers import read
from backflip.feedback.quality import Quality, quality
from backflip.maths.agreement import gwet_ac, krippendorff_alpha, percent_agreement
from backflip.maths.ratings import wilson
from backflip.maths.shares import binomial_p, wilson_share
from backflip.records import Prompt, Query, Verdict
from backflip.seeds import Seeds
from backflip.store import Store
from backflip.store.events import Event

NONE = (None, None, None, 0)
CODE = {"l": "left", "r": "right", "t": "tie", "s": "skip"}


def pair(i: int, left: str = "short", right: str = "rather longer") -> Query:
    return Query(Prompt(f"prompt {i}"), (left, right))


def table(**answers: str) -> tuple[list[Query], list[Verdict]]:
    """Queries, and what each labeler said of them in order: l, r, t, s for a skip, a dot for nothing."""
    queries = [pair(i) for i in range(max(map(len, answers.values())))]
    verdicts = [
        Verdict(query.id, name, CODE[said])  # type: ignore[arg-type]
        for name, row in answers.items()
        for query, said in zip(queries, row, strict=False)
        if said != "."
    ]
    return queries, verdicts


def found_in(queries: Any, verdicts: Iterable[Verdict], **options: Any) -> Quality:
    return quality(queries, verdicts, seeds=Seeds(0), **options)


def rater(found: Quality, name: str) -> Any:
    return next(rater for rater in found.raters if rater.name == name)


# ------------------------------------------------------------------------------------------------ everybody


def test_a_table_by_hand() -> None:
    queries, verdicts = table(ann="llrrt.l", ben="llrlt.s", cai="l....r.")
    found = found_in(queries, verdicts)
    assert (found.n_units, found.n_overlapping) == (7, 5)
    nan = math.nan
    answers = np.array([[0, 0, 1, 1, 0.5, nan, 0], [0, 0, 1, 0, 0.5, nan, nan], [0, nan, nan, nan, nan, 1, nan]]).T
    rng = Seeds(0).numpy("quality", "bootstrap")
    for figure, other in (
        (found.alpha_nominal, krippendorff_alpha(answers, "nominal", rng=rng)),
        (found.alpha_ordinal, krippendorff_alpha(answers, "ordinal", rng=rng)),
        (found.ac1, gwet_ac(answers)),
        (found.raw, percent_agreement(answers)),
    ):
        assert (figure.value, figure.n, figure.n_pairs) == pytest.approx((other.value, 5, 7))
        assert (figure.low, figure.high) == pytest.approx((other.low, other.high))
        assert figure.low < figure.value < figure.high
    assert found.raw.value == pytest.approx(0.8)
    ann, ben, cai = found.raters
    assert [(r.name, r.n_answers, r.n_skips) for r in found.raters] == [("ann", 6, 0), ("ben", 5, 1), ("cai", 2, 0)]
    # Of the queries that others answered, with one answer ahead: ann meets ben on five and cai agrees on the first.
    assert ann.consensus == pytest.approx(wilson_share(4, 5))
    assert ben.consensus == pytest.approx(wilson_share(4, 5))
    assert cai.consensus == pytest.approx(wilson_share(1, 1))
    assert [(p.a, p.b) for p in found.pairs] == [("ann", "ben"), ("ann", "cai"), ("ben", "cai")]
    assert [p[2:] for p in found.pairs] == [pytest.approx(wilson_share(k, n)) for k, n in ((4, 5), (1, 1), (1, 1))]
    assert [unit.query_id for unit in found.contested] == [queries[3].id]
    assert found.contested[0].counts == {"left": 1, "tie": 0, "right": 1}
    assert found.contested[0].entropy == pytest.approx(math.log(2))


def test_nothing_asked_of_two_is_undefined_and_says_so() -> None:
    for queries, verdicts in (table(ann="llr...", ben="...lrt"), ([pair(0)], []), ([], [])):
        found = found_in(queries, verdicts)
        for figure in (found.alpha_nominal, found.alpha_ordinal, found.ac1, found.raw):
            assert (figure.value, figure.low, figure.high, figure.n) == NONE
            assert (figure.words, figure.why_key) == ("undefined", "no_overlap")
            assert "answered by two" in figure.why
        assert found.n_overlapping == 0
        assert found.pairs == found.contested == ()
        assert all(r.consensus == r.reliability == r.gold == r.consistency == r.median_ms == NONE for r in found.raters)
        json.dumps(found.to_json(), allow_nan=False)


def test_one_answer_to_everything_is_undefined_and_not_perfect() -> None:
    found = found_in(*table(ann="llllllll", ben="llllllll"))
    for figure in (found.alpha_nominal, found.alpha_ordinal, found.ac1):
        assert (figure.value, figure.words, figure.why_key, figure.n) == (None, "undefined", "one_category", 8)
    assert (found.raw.value, found.raw.words) == (1.0, "agree_none")  # chance would agree as well


def test_the_words_follow_value_and_interval() -> None:
    alike, coin = "lr" * 100, "lrlrrlrl" * 25
    words = lambda **rows: [getattr(found_in(*table(**rows)), k).words for k in ("alpha_nominal", "ac1", "raw")]  # noqa: E731
    assert words(ann=alike, ben=alike) == ["agree_strong"] * 3
    assert words(ann=alike, ben=alike[:170] + coin[4:8] * 7 + "lr") == ["agree_moderate"] * 3
    assert words(ann=alike, ben=alike[:80] + coin[:120]) == ["agree_little"] * 3
    assert words(ann=alike, ben=coin) == ["agree_none"] * 3
    assert words(ann="lrlrl", ben="lrlrl") == ["agree_none"] * 3  # too few to be told from luck


def test_people_are_the_measure_and_judges_are_measured() -> None:
    queries, verdicts = table(ann="llrrlr", ben="llrrlr", judge="rrllrl")
    both, people = found_in(queries, verdicts), found_in(queries, verdicts, people=["ann", "ben"])
    assert both.raw.value == pytest.approx(1 / 3)
    assert (people.raw.value, people.raw.n_pairs) == (1.0, 6)
    assert [(r.name, r.person, r.consensus.value) for r in people.raters] == [
        ("ann", True, 1.0),
        ("ben", True, 1.0),
        ("judge", False, 0.0),
    ]
    assert people.pairs == both.pairs
    assert len(both.contested) == 6
    assert people.contested == ()
    # With one person left, a judge is held against that person's answers, and she against nobody's.
    alone = found_in(queries, verdicts, people={"ann"})
    assert [(r.name, r.consensus.n) for r in alone.raters] == [("ann", 0), ("ben", 6), ("judge", 6)]


def test_the_consensus_leaves_oneself_and_even_splits_out() -> None:
    found = found_in(*table(ann="lll", ben="lrl", cai="rrl", dan="tll"))
    # 1: the others of ann say l, r, t: no one answer is ahead. Of ben l, r, t; of cai l, l, t → l; of dan l, l, r → l.
    # 2: ann's others r, r, l → r; ben's l, r, l → l; cai's l, r, l → l; dan's l, r, r → r. 3: all l.
    assert [(r.consensus.value, r.consensus.n) for r in found.raters] == [
        (pytest.approx(1 / 2), 2),
        (pytest.approx(1 / 2), 2),
        (pytest.approx(1 / 3), 3),
        (pytest.approx(1 / 3), 3),
    ]


# ------------------------------------------------------------------------------------------------ habits


def many(n: int, seed: int = 0) -> tuple[list[Query], np.random.Generator]:
    rng = np.random.default_rng(seed)
    return [pair(i, "x" * int(rng.integers(1, 99)), "y" * int(rng.integers(1, 99))) for i in range(n)], rng


def test_a_hand_that_goes_left_is_found_and_a_fair_one_is_not() -> None:
    queries, rng = many(400)
    verdicts = []
    for query in queries:
        for name, habit in (("lefty", 0.7), ("righty", 0.3), ("fair", 0.5)):
            first = int(rng.integers(2))
            won = first if rng.random() < habit else 1 - first
            verdicts.append(Verdict(query.id, name, ("left", "right")[won], shown_first=first))
    found = found_in(queries, verdicts)
    lefty, righty, fair = (rater(found, name).left for name in ("lefty", "righty", "fair"))
    assert lefty.value == pytest.approx(0.7, abs=0.06)
    assert lefty.low > 0.5
    assert lefty.p < 1e-6
    assert righty.high < 0.5
    assert righty.p < 1e-6
    assert fair.low < 0.5 < fair.high
    assert fair.p > 0.05
    assert lefty.n == 400
    assert all(r.longer.p > 0.01 for r in found.raters)


def test_side_and_length_by_hand() -> None:
    a, b, c, d, same = pair(0, "aa", "b"), pair(1, "a", "bb"), pair(2, "aa", "b"), pair(3, "a", "bb"), pair(4, "aa", "bb")
    verdicts = [
        Verdict(a.id, "ann", "left", shown_first=0),  # the left place won, the longer text won
        Verdict(b.id, "ann", "right", shown_first=1),  # likewise
        Verdict(c.id, "ann", "left", shown_first=1),  # the right place, the longer text
        Verdict(d.id, "ann", "tie", shown_first=1),  # decides nothing
        Verdict(same.id, "ann", "right", shown_first=0),  # the right place, no text is longer
    ]
    [ann] = found_in([a, b, c, d, same], verdicts).raters
    assert dataclasses.astuple(ann.left) == pytest.approx((0.5, *wilson(0.5, 4), 4, 1.0))
    assert dataclasses.astuple(ann.longer) == pytest.approx((1.0, *wilson(1.0, 3), 3, binomial_p(3, 3)))


def test_a_taste_for_length_is_found_where_completions_are_texts() -> None:
    queries, rng = many(300)
    verdicts = [
        Verdict(q.id, "ann", "left" if (len(q.completions[0]) > len(q.completions[1])) == (rng.random() < 0.75) else "right")
        for q in queries
    ]
    [ann] = found_in(queries, verdicts).raters
    assert ann.longer.low > 0.65
    assert ann.longer.p < 1e-9
    clips = [dataclasses.replace(query, form="clip") for query in queries]
    verdicts = [dataclasses.replace(v, query_id=clip.id) for v, clip in zip(verdicts, clips, strict=True)]
    [ann] = found_in(clips, verdicts).raters
    assert (ann.longer.value, ann.longer.n, ann.longer.p) == (None, 0, None)
    assert ann.left.n == 300


def test_rankings_count_pair_by_pair_and_their_pairs_are_one_throw() -> None:
    query = Query(Prompt("p"), ("a", "bb", "ccc"))
    ann = Verdict(query.id, "ann", "ranking", ranking=((2,), (0, 1)), shown_first=2)
    ben = Verdict(query.id, "ben", "ranking", ranking=((2,), (1,), (0,)), shown_first=0)
    found = found_in([query], [ann, ben])
    assert (found.n_units, found.n_overlapping) == (3, 3)
    assert found.raw.value == pytest.approx(2 / 3)
    [met] = found.pairs
    # Three pairs of one query are one draw: the interval is that of one trial.
    assert met[2:] == pytest.approx((2 / 3, *wilson(2 / 3, 1), 3))
    assert dataclasses.astuple(rater(found, "ann").left) == pytest.approx((1.0, *wilson(1.0, 1), 2, 1.0))
    assert dataclasses.astuple(rater(found, "ben").left)[::4] == (0.0, 1.0)
    assert dataclasses.astuple(rater(found, "ben").longer)[3:] == (3, 1.0)
    assert [unit.pair for unit in found.contested] == [(0, 1)]
    assert [(o.annotator, o.answer) for o in found.contested[0].opinions] == [("ann", "tie"), ("ben", "right")]


def test_ratings_and_strengths_are_answers_too() -> None:
    query, three = pair(0), Query(Prompt("p"), ("a", "bb", "ccc"))
    verdicts = [
        Verdict(query.id, "ann", "left", strength=3),
        Verdict(query.id, "ben", "rating", scores=(5, 2)),
        Verdict(query.id, "cai", "tie", code="bad"),
        Verdict(three.id, "ann", "ranking", ranking=((0,), (1, 2))),
        Verdict(three.id, "ben", "rating", scores=(4, 1, 1)),
    ]
    found = found_in([query, three], verdicts)
    by_pair = {(p.a, p.b): (p.value, p.n) for p in found.pairs}
    assert by_pair == {("ann", "ben"): (1.0, 4), ("ann", "cai"): (0.0, 1), ("ben", "cai"): (0.0, 1)}


def test_median_time_with_an_interval() -> None:
    queries, _ = many(101)
    verdicts = [Verdict(query.id, "ann", "left", ms=1000 + 10 * i) for i, query in enumerate(queries)]
    verdicts += [Verdict(query.id, "bot", "left") for query in queries]
    verdicts += [Verdict(query.id, "cai", "left", ms=ms) for query, ms in zip(queries, (300, 100, 200, 400), strict=False)]
    found = found_in(queries, verdicts)
    # Of 101 values the 41st and 61st bound the median with 95 % (binomial); ours are at most one place wider.
    assert rater(found, "ann").median_ms == (1500.0, pytest.approx(1400, abs=20), pytest.approx(1600, abs=20), 101)
    assert rater(found, "bot").median_ms == NONE
    assert rater(found, "cai").median_ms == (250.0, 100.0, 400.0, 4)


# ------------------------------------------------------------------------------------------------ known answers and repeats


def test_known_answers_measure_people_and_stay_out_of_agreement() -> None:
    queries, verdicts = table(ann="llrrt", ben="llrlt")
    three = Query(Prompt("p"), ("a", "b", "c"))
    queries.append(three)
    verdicts.append(Verdict(three.id, "ben", "ranking", ranking=((2,), (0,), (1,))))
    gold = {
        queries[0].id: "left",
        queries[3].id: "right",
        queries[4].id: "left",
        three.id: [[2], [0, 1]],
        "unknown": "left",
    }
    found = found_in(queries, verdicts, gold=gold)
    assert rater(found, "ann").gold == pytest.approx(wilson_share(2, 3))
    assert rater(found, "ben").gold[::3] == pytest.approx((1 / 2, 6))  # left, of the ranking two of three pairs
    assert (found.n_units, found.raw.value) == (2, 1.0)
    assert [(p.n, p.value) for p in found.pairs] == [(2, 1.0)]
    assert found.contested == ()
    assert rater(found, "ben").n_answers == 6


@pytest.mark.parametrize(
    ("expected", "why"),
    [
        ("middle", "unknown choice"),
        ("skip", "use left, right, tie or a ranking"),
        ([[0], [0]], "does not place"),
        (7, "iterable"),
    ],
)
def test_a_known_answer_that_does_not_fit_is_refused(expected: Any, why: str) -> None:
    queries, verdicts = table(ann="l")
    with pytest.raises(DataError, match=why):
        found_in(queries, verdicts, gold={queries[0].id: expected})


def test_a_verdict_that_does_not_fit_is_refused_by_name() -> None:
    query = Query(Prompt("p"), ("a", "b", "c"))
    with pytest.raises(DataError, match=r"answer of 'ann' to query .* 3 completions"):
        found_in([query], [Verdict(query.id, "ann", "left")])


def test_consistency_is_the_share_of_repeats_that_stayed_the_same() -> None:
    queries, verdicts = table(ann="llr", ben="l")
    three = Query(Prompt("p"), ("a", "b", "c"))
    one = Verdict(three.id, "ben", "ranking", ranking=((0,), (1,), (2,)))
    other = Verdict(three.id, "ben", "ranking", ranking=((0,), (2,), (1,)))
    rows = [
        (verdicts[0], Verdict(queries[0].id, "ann", "left", at=9)),
        (queries[1].id, "ann", verdicts[1], Verdict(queries[1].id, "ann", "tie", at=9)),
        (verdicts[2], Verdict(queries[2].id, "ann", "skip", at=9)),
        (one, other),
        (Verdict("elsewhere", "ann", "left"), Verdict("elsewhere", "ann", "left")),
    ]
    found = found_in([*queries, three], verdicts, repeats=rows)
    assert rater(found, "ann").consistency == pytest.approx(wilson_share(1, 2))
    assert rater(found, "ben").consistency == pytest.approx((2 / 3, *wilson(2 / 3, 1), 3))
    assert rater(found, "ann").n_answers == 3  # the second answers count nowhere else


def test_reliability_tells_the_careful_from_the_careless() -> None:
    queries, rng = many(400)
    habits = {"ann": 0.95, "ben": 0.9, "cai": 0.55, "dan": 0.9}
    verdicts = []
    for query in queries:
        truth = int(rng.integers(2))
        for name, right in habits.items():
            said = truth if rng.random() < right else 1 - truth
            verdicts.append(Verdict(query.id, name, ("left", "right")[said]))
    found = found_in(queries, verdicts)
    for name, right in habits.items():
        assert rater(found, name).reliability.value == pytest.approx(right, abs=0.05)
        assert rater(found, name).reliability.n == 400
    # Whom the others contradict for no fault of hers does better by reliability than by consensus.
    assert rater(found, "ann").reliability.value > rater(found, "ann").consensus.value


# ------------------------------------------------------------------------------------------------ contested


def test_the_most_contested_come_first_with_all_that_was_said() -> None:
    queries, verdicts = table(ann="lllll", ben="rlltl", cai="tlrrl", dan="..r..")
    verdicts[0] = dataclasses.replace(verdicts[0], note="better tone", ms=800)
    found = found_in(queries, verdicts)
    assert [unit.query_id for unit in found.contested] == [queries[i].id for i in (0, 3, 2)]
    shown = found.contested[0].to_json()
    assert (shown["n"], shown["counts"], shown["pair"]) == (3, {"left": 1, "tie": 1, "right": 1}, [0, 1])
    assert [(o["annotator"], o["answer"], o["note"], o["ms"]) for o in shown["opinions"]] == [
        ("ann", "left", "better tone", 800),
        ("ben", "right", "", 0),
        ("cai", "tie", "", 0),
    ]
    assert found.contested[2].entropy == pytest.approx(math.log(2))


def test_what_is_settled_comes_last_and_the_list_ends_at_fifty() -> None:
    queries, verdicts = table(ann="l" * 60, ben="r" * 60)
    payload = {"query_id": queries[7].id, "ranking": [[1], [0]]}
    events = [
        Event(1, "k", "eve", None, "edit", {"query_id": queries[9].id}, None, 0.0, ""),
        Event(2, "k2", "eve", None, "adjudicate", payload, None, 0.0, ""),
    ]
    found = found_in(queries, verdicts, events=events)
    ids = [unit.query_id for unit in found.contested]
    assert len(ids) == 50
    assert queries[7].id not in ids
    assert queries[9].id in ids
    few = found_in(queries[:9], verdicts, events=events).contested
    assert few[-1].query_id == queries[7].id
    assert few[-1].to_json()["adjudicated"] == payload
    assert all(unit.adjudicated is None for unit in few[:-1])


# ------------------------------------------------------------------------------------------------ what it does not depend on


def test_of_two_verdicts_the_last_stands_and_strangers_are_left_out() -> None:
    queries, verdicts = table(ann="lr", ben="lr")
    again = Verdict(queries[1].id, "ann", "left", at=5)
    elsewhere = Verdict("elsewhere", "zoe", "left")
    found = found_in(queries, [*verdicts, again, elsewhere])
    assert [(r.name, r.n_answers) for r in found.raters] == [("ann", 2), ("ben", 2)]
    assert found.raw.value == 0.5
    skipped = found_in(queries, [*verdicts, Verdict(queries[1].id, "ann", "skip", at=5)])
    assert (rater(skipped, "ann").n_answers, rater(skipped, "ann").n_skips) == (1, 1)


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """The JSON of a rater without nesting, as pytest.approx wants it."""
    inner = {f"{name}.{key}": x for name, figure in row.items() if isinstance(figure, dict) for key, x in figure.items()}
    return inner | {name: x for name, x in row.items() if not isinstance(x, dict)}


def test_order_does_not_matter_and_the_same_input_gives_the_same() -> None:
    queries, verdicts = table(ann="llrrtlrs", ben="llrltrr.", cai="lrr.tlrl")
    once = found_in(queries, verdicts).to_json()
    assert found_in({query.id: query for query in queries}, iter(verdicts)).to_json() == once
    moved = found_in(queries[::-1], verdicts[::-1]).to_json()
    assert moved["pairs"] == [pytest.approx(row) for row in once["pairs"]]
    assert [flat(row) for row in moved["raters"]] == [pytest.approx(flat(row)) for row in once["raters"]]
    for name in ("alpha_nominal", "alpha_ordinal", "ac1", "raw"):
        assert moved[name]["value"] == pytest.approx(once[name]["value"])


def test_both_ways_of_counting_pairs_agree() -> None:
    # Many labelers on few queries are counted by a product of matrices, few on many by a list of pairs.
    rng = np.random.default_rng(0)
    names = [f"r{i}" for i in range(20)]
    queries, verdicts = table(**{name: "".join(rng.choice(list("lrt."), 6)) for name in names})
    dense = found_in(queries, verdicts).pairs
    said = {(v.annotator, v.query_id): v.choice for v in verdicts}
    for a, b in itertools.combinations(sorted(names), 2):
        both = [(said[a, q.id], said[b, q.id]) for q in queries if (a, q.id) in said and (b, q.id) in said]
        shown = [p[2:] for p in dense if (p.a, p.b) == (a, b)]
        expected = [pytest.approx(wilson_share(sum(x == y for x, y in both), len(both)))] if both else []
        assert shown == expected
    alone = [pair(100 + i) for i in range(2000)]  # enough queries that a matrix would be the larger
    spread = [Verdict(query.id, "ann", "left") for query in alone]
    assert [tuple(p) for p in found_in([*queries, *alone], [*verdicts, *spread]).pairs] == [
        (p.a, p.b, *(pytest.approx(x) for x in p[2:])) for p in dense
    ]


def test_it_reads_what_a_store_gives_and_is_plain_json(tmp_path: Path) -> None:
    queries, verdicts = table(ann="llrt", ben="lrrt")
    with Store(tmp_path / "feedback.db") as store:
        store.add_queries(queries)
        store.add_verdicts(verdicts)
        store.retract(verdicts[0].id, "ann")
        found = found_in(store.queries(), store.verdicts(), events=store.events(), gold={queries[3].id: "tie"})
    shown = found.to_json()
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown
    assert shown["n_units"] == 3
    assert shown["n_overlapping"] == 2
    assert set(shown["raters"][0]) == {
        "name", "person", "n_answers", "n_skips", "consensus", "gold", "left", "longer", "median_ms", "consistency",
        "reliability",
    }  # fmt: skip
    intervals = [shown[name] for name in ("alpha_nominal", "alpha_ordinal", "ac1", "raw")] + shown["pairs"]
    intervals += [figure for r in shown["raters"] for figure in r.values() if isinstance(figure, dict)]
    for figure in intervals:
        assert {"value", "low", "high", "n"} <= set(figure)
        assert (figure["value"] is None) == (figure["low"] is None) == (figure["high"] is None)


choices = st.sampled_from(["left", "right", "tie", "skip", "ranking", "rating"])


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abc"), choices, st.randoms()), max_size=12))
def test_answers_are_what_comparisons_say(rows: list[tuple[int, str, str, Any]]) -> None:
    queries = [pair(0), pair(1), Query(Prompt("p"), ("a", "b", "c")), Query(Prompt("q"), ("a", "b", "c", "d"))]
    verdicts: dict[tuple[str, str], Verdict] = {}
    for number, name, choice, rng in rows:
        query = queries[number]
        k = len(query.completions)
        said: dict[str, Any] = {}
        if choice == "rating":
            said = {"scores": tuple(rng.choice((1.0, 2.0, 3.0)) for _ in range(k))}
        elif choice != "skip" and (k > 2 or choice == "ranking"):
            choice, order = "ranking", rng.sample(range(k), k)
            cut = rng.randint(1, k)
            said = {"ranking": tuple(group for group in (tuple(order[:cut]), tuple(order[cut:])) if group)}
        verdicts[query.id, name] = Verdict(query.id, name, choice, **said)  # type: ignore[arg-type]
    found = read(queries, list(verdicts.values()), {}, [])
    shown = {
        (found.query_ids[found.query_U[unit]], int(found.i_U[unit]), int(found.j_U[unit]), found.names[who]): int(category)
        for unit, who, category in zip(found.unit_N, found.rater_N, found.category_N, strict=True)
    }
    expected = {}
    for query in queries:
        for verdict in (v for (query_id, _), v in verdicts.items() if query_id == query.id):
            pairs = itertools.combinations(range(len(query.completions)), 2)
            for (i, j), comparison in zip(pairs, verdict.comparisons(query) or [], strict=False):
                expected[query.id, i, j, verdict.annotator] = int(2 - 2 * comparison.p_left)
    assert shown == expected
    assert len(found.verdicts) + found.skips_R.sum() == len(verdicts)
