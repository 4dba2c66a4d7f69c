"""`backflip rounds` killed with signal 9: nothing is lost, and it ends the same (long form: `python -m tests.rounds.kills`)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from tests.resume.compare import differences
from tests.rounds.kills import PLACES, Death, Yard, left_by, people

DEATHS = (
    [Death("questions filed", 2, True), Death("PPO step", 2, True), Death("a file renamed", 5, False)],
    [Death("answers written", 3, True), Death("generation kept", 2, False), Death("decision written", 1, True)],
    [Death("reward model saved", 1, True), Death("verification drawn", 1, True), Death("arena's samples", 2, True)],
)
"""The deaths of one run after the other; calls are counted anew in each process."""


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    made = Yard(tmp_path_factory.mktemp("yard"))
    made.undisturbed("everything")
    yield made
    shutil.rmtree(made.place)


def test_a_loop_with_everything_on_reaches_every_place_and_two_runs_are_equal(yard: Yard) -> None:
    first, calls = yard.expected["everything"], yard.calls["everything"]
    assert {name for name in PLACES if not calls[name]} == set()
    shutil.rmtree(yard.place / "everything")
    yard.undisturbed("everything")
    assert differences(first, yard.expected["everything"]) == []


def test_a_loop_that_is_killed_ends_the_same(yard: Yard) -> None:
    for number, (one, two, three) in enumerate(DEATHS):
        name = f"killed-{number}"
        for death in (one, two, three):
            assert yard.start("everything", name, death=death) < 0, f"nothing died at {death}"
        assert yard.start("everything", name) == 0
        assert differences(yard.expected["everything"], left_by(yard.place / name)) == []


def test_what_the_studio_acknowledged_while_the_loop_was_killed_is_kept(yard: Yard) -> None:
    kept = people(yard, ("comparisons kept", "PPO step"))
    assert kept.acknowledged > 10
    assert kept.missing == 0
