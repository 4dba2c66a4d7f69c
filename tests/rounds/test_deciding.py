"""What follows from a round: each outcome of a vote by hand, patience, evidence, and files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backflip.maths.ratings import WinRate, win_rate
from backflip.records import Comparison, Prompt
from backflip.rounds import deciding
from backflip.rounds.deciding import Decision, decide

BETTER, WORSE, EVEN = WinRate(0.7, 0.6, 0.8, 100), WinRate(0.3, 0.2, 0.4, 100), WinRate(0.52, 0.42, 0.62, 100)
LESS = WinRate(0.48, 0.38, 0.58, 100)


def past(*acts: str) -> list[Decision]:
    return [Decision(round=i, act=act, kept="x", times=1, why="", evidence={}) for i, act in enumerate(acts, 1)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("won", "history", "act", "kept", "times"),
    [
        (None, (), "next", "round2", 1),
        (BETTER, (), "next", "round2", 1),
        (WORSE, (), "roll back", "round1", 1),
        (EVEN, (), "more labels", "round2", 2),
        (LESS, (), "more labels", "round1", 2),
        (WORSE, ("roll back",), "stop", "round1", 1),
        (EVEN, ("next", "more labels"), "stop", "round2", 1),
        (WORSE, ("roll back", "next"), "roll back", "round1", 1),
        (BETTER, ("roll back", "more labels"), "next", "round2", 1),
    ],
)
def test_what_follows(won: WinRate | None, history: tuple[str, ...], act: str, kept: str, times: int) -> None:
    found = decide(2, "round1", "round2", won, past(*history), 2, {"comparisons": 7})
    assert (found.act, found.kept, found.times) == (act, kept, times)
    assert found.evidence["comparisons"] == 7
    assert ("win_rate" in found.evidence) == (won is not None)


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=60), st.integers(1, 4), st.integers(0, 5))
def test_nothing_that_lost_more_often_than_it_won_is_kept(votes: list[float], patience: int, bad: int) -> None:
    found = decide(bad + 1, "old", "new", win_rate(votes), past(*["more labels"] * bad), patience, {})
    mean = sum(votes) / len(votes)
    assert (found.kept == "new") == (mean > 0.5)
    assert (found.act == "stop") <= (bad + 1 >= patience)
    assert found.act != "next" or mean > 0.5


def comparison(left: str, right: str, p_left: float, prompt: str = "a") -> Comparison:
    return Comparison(Prompt(prompt), "x", "y", p_left=p_left, left_policy=left, right_policy=right)


def test_votes_count_whichever_side_they_were_on() -> None:
    votes = [comparison("new", "old", 1.0, "a"), comparison("old", "new", 0.0, "b"), comparison("old", "new", 0.5, "c")]
    others = [comparison("new", "first", 0.0), comparison("old", "first", 0.0)]
    found = deciding.preferred(votes + others, "new", "old")
    assert found is not None
    assert found.mean == pytest.approx(2.5 / 3)
    assert found.n == 3
    assert deciding.preferred(others, "new", "old") is None


def test_the_age_of_what_was_learned_from() -> None:
    names = ["sft", "round1", "round2"]
    told = [comparison("sft", "sft", 1.0), comparison("round2", "round1", 0.0)]
    assert deciding.staleness(told, names) == pytest.approx((2 + 2 + 0 + 1) / 4)
    assert deciding.staleness([comparison("", "", 1.0)], names) is None


def test_decisions_are_read_back_up_to_the_first_that_is_missing(tmp_path: Path) -> None:
    first = decide(1, "sft", "round1", EVEN, [], 2, {"staleness": 0.0})
    third = decide(3, "round1", "round3", BETTER, [], 2, {})
    for decision in (first, third):
        deciding.file_of(tmp_path, decision.round).parent.mkdir()
        deciding.write(tmp_path, decision)
    assert deciding.read(tmp_path, 5) == [first]
    assert deciding.read(tmp_path, 0) == []
