"""The oracle errs as its formula says, answers the same again, and its answers survive an interruption."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backflip.errors import NumericsError, UserError
from backflip.feedback import labelers
from backflip.feedback.labelers import Oracle, answer_all, opinions, preference_probability
from backflip.records import Choice, Prompt, Query, Verdict
from backflip.seeds import Seeds
from backflip.store import Store


def value(_prompt: Prompt, text: str) -> float:
    return float(text)


def oracle(**settings: float) -> Oracle:
    return Oracle(value, seeds=Seeds(7), **settings)  # type: ignore[arg-type]


def asked(n: int, *texts: str) -> list[Query]:
    return [Query(Prompt(f"p{i}"), texts) for i in range(n)]


@pytest.mark.parametrize(
    ("difference", "noise", "temperature", "expected"),
    [
        (0.0, 0.0, 1.0, 0.5),
        (math.log(3), 0.0, 1.0, 0.75),
        (-math.log(3), 0.0, 1.0, 0.25),
        (2 * math.log(3), 0.1, 2.0, 0.9 * 0.75 + 0.05),
        (1e-9, 0.1, 0.0, 0.95),
        (0.0, 0.1, 0.0, 0.5),
        (-3.0, 1.0, 0.0, 0.5),
        (1e308, 0.0, 1e-3, 1.0),
    ],
)
def test_the_probability_by_hand(difference: float, noise: float, temperature: float, expected: float) -> None:
    assert preference_probability(difference, noise, temperature) == pytest.approx(expected, abs=1e-12)


@given(st.floats(-50, 50), st.floats(0, 1), st.floats(0, 5))
def test_the_probability_is_fair_to_both_sides(difference: float, noise: float, temperature: float) -> None:
    p = preference_probability(difference, noise, temperature)
    assert p + preference_probability(-difference, noise, temperature) == pytest.approx(1.0)
    assert noise / 2 - 1e-12 <= p <= 1 - noise / 2 + 1e-12


def test_answers_follow_the_probability() -> None:
    n, p = 2000, preference_probability(1.0, 0.1, 1.0)
    lefts = sum(oracle().answer(q).choice == "left" for q in asked(n, "1", "0"))
    assert abs(lefts - n * p) < 4.5 * math.sqrt(n * p * (1 - p))


def test_without_noise_and_temperature_the_better_one_wins() -> None:
    sure = oracle(noise=0.0, temperature=0.0)
    assert {sure.answer(q).choice for q in asked(50, "1", "2")} == {"right"}
    assert {sure.answer(q).choice for q in asked(50, "2", "2")} == {"left", "right"}
    assert sure.answer(asked(1, "1", "3", "2")[0]).ranking == ((1,), (2,), (0,))


def test_ties_within_the_width_come_before_any_error() -> None:
    blunt = oracle(noise=1.0, tie_width=0.5)
    assert {blunt.answer(q).choice for q in asked(30, "1", "1.4")} == {"tie"}
    assert "tie" not in {blunt.answer(q).choice for q in asked(30, "1", "1.5")}
    ranked = oracle(noise=0.0, temperature=0.0, tie_width=0.5).answer(asked(1, "0", "5", "0.3")[0])
    assert [set(group) for group in ranked.ranking] == [{1}, {0, 2}]


class Sayer:
    """Says what it was told to, whatever is asked."""

    name = "sayer"

    def __init__(self, *choices: Choice) -> None:
        self.choices = iter(choices)

    def answer(self, query: Query) -> Verdict:
        return Verdict(query.id, self.name, next(self.choices))


def test_opinions_are_how_far_the_first_completion_is_preferred() -> None:
    queries = [Query(Prompt(f"p{i}"), ("a", "b")) for i in range(4)]
    assert opinions(Sayer("left", "right", "tie", "skip"), queries) == [1.0, 0.0, 0.5, None]


def test_rankings_are_plackett_luce() -> None:
    """P(order) = ∏ exp(u_i)/Σ_remaining exp(u), by hand for u = 0, 1, 2, against 3,000 draws."""
    u, n = [0.0, 1.0, 2.0], 3000
    verdicts = [oracle(noise=0.0).answer(q) for q in asked(n, "0", "1", "2")]
    counts = Counter(tuple(i for (i,) in verdict.ranking) for verdict in verdicts)
    for order in itertools.permutations(range(3)):
        p = math.prod(math.exp(u[order[i]]) / sum(math.exp(u[j]) for j in order[i:]) for i in range(3))
        assert abs(counts[order] - n * p) < 4.5 * math.sqrt(n * p * (1 - p))


def test_full_noise_makes_rankings_uniform() -> None:
    counts = Counter(oracle(noise=1.0).answer(q).ranking for q in asked(1200, "0", "9", "99"))
    assert len(counts) == 6
    assert all(abs(n - 200) < 60 for n in counts.values())


def test_asked_again_in_any_order_it_answers_the_same() -> None:
    queries = asked(40, "0", "0.1") + asked(10, "0", "0.1", "0.2")
    first = [oracle().answer(q) for q in queries]
    again = oracle()
    assert [again.answer(q) for q in reversed(queries)] == first[::-1]
    assert [Oracle(value, seeds=Seeds(8)).answer(q) for q in queries] != first
    assert {v.shown_first for v in first[:40]} == {0, 1}
    assert {(v.at, v.ms, v.annotator) for v in first} == {(0.0, 0, "oracle")}


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf"])
def test_a_utility_that_is_no_number_stops_at_once(bad: str) -> None:
    with pytest.raises(NumericsError, match=f"utility of labeler 'oracle' is {bad} for completion '{bad}'"):
        oracle().answer(asked(1, "1", bad)[0])


@pytest.mark.parametrize("settings", [{"noise": 1.5}, {"noise": math.nan}, {"temperature": -1.0}, {"tie_width": -0.1}])
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(UserError, match=r"is a probability|cannot be negative"):
        oracle(**settings)


class Breaking:
    """Answers until it has answered `after` queries, then fails."""

    name = "breaking"

    def __init__(self, after: int) -> None:
        self.left, self.asked = after, 0

    def answer(self, query: Query) -> Verdict:
        self.asked += 1
        if self.asked > self.left:
            raise ConnectionError("the judge went away")
        return Verdict(query.id, self.name, "left")


def test_an_interruption_keeps_every_answer_and_the_second_call_does_the_rest(tmp_path: Path) -> None:
    queries = asked(80, "1", "2")
    after = labelers.CHUNK + 5
    with Store(tmp_path / "feedback.db") as store:
        with pytest.raises(ConnectionError):
            answer_all(store, Breaking(after), queries)
        assert len(store.verdicts()) == after
        healed = Breaking(1000)
        assert answer_all(store, healed, [*queries, queries[0]]) == 80 - after == healed.asked
        assert [v.query_id for v in store.verdicts()] == [q.id for q in queries]
        assert answer_all(store, healed, queries) == 0
        assert answer_all(store, oracle(), queries[:3]) == 3
