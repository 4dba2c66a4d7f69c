"""The outer loop, cut off in every stage: it goes on where it was and ends as if it had never been."""

from __future__ import annotations

import functools
import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backflip.errors import Interrupted
from backflip.feedback.labelers import Oracle
from backflip.policies.language import LanguagePolicy
from backflip.records import Prompt, Sample, Verdict
from backflip.rewards.learned import RewardModel
from backflip.rounds import Loop
from backflip.rounds import loop as room
from backflip.runs import Run
from backflip.runs.checkpoints import Checkpoints
from backflip.seeds import Seeds
from backflip.store import Store
from backflip.train.learner import Learner
from tests.resume import job, kill
from tests.resume.compare import differences, snapshot
from tests.resume.conftest import CutOff, Killed, Undisturbed

PLACES: list[tuple[Any, str]] = [
    (Learner, "update"), (Oracle, "answer"), (Store, "add_queries"), (Store, "add_verdicts"), (Run, "finish"),
    (Checkpoints, "_put"), (LanguagePolicy, "save"), (RewardModel, "save"), (room, "write_atomic"),
    (room, "generate_samples"), (room, "fsync_dir"),
]  # fmt: skip
"""Calls before and after which a loop may die; together they are in every stage of it."""


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """`fused(n)`: the loop dies at the n-th of the moments before and after a call of `PLACES`; it lives if n is negative."""
    left = [-1]

    def burn() -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    def with_fuse(real: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(real)
        def call(*args: Any, **named: Any) -> Any:
            burn()
            result = real(*args, **named)
            burn()
            return result

        return call

    for owner, name in PLACES:
        monkeypatch.setattr(owner, name, with_fuse(getattr(owner, name)))

    def lay(n: int) -> None:
        left[0] = n

    yield lay
    monkeypatch.undo()


def test_a_loop_that_dies_again_and_again_ends_the_same(
    tmp_path: Path, undisturbed: Undisturbed, fused: Callable[[int], None]
) -> None:
    fused(-1)
    expected = undisturbed("rounds")
    random, deaths = Seeds(0).numpy("deaths"), 0
    while not (tmp_path / "result.json").exists():
        fused(int(random.integers(20, 70)))
        try:
            job.perform("rounds", tmp_path)
        except Killed:
            deaths += 1
    assert deaths >= 5
    assert differences(expected, snapshot(tmp_path)) == []


@pytest.mark.parametrize("place", ["generation", "arena"])
def test_what_was_half_written_is_written_again(
    tmp_path: Path, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    keep, play = Loop.keep, Loop.play

    def die_inside(self: Loop, name: str, policy: Any) -> None:
        if name == "round1":
            policy().save(self.folder / "generations" / ".round1.new")
            (self.folder / "generations" / ".round1.new" / "model.safetensors").write_bytes(b"half")
            raise Killed
        keep(self, name, policy)

    def die_between(self: Loop, names: Any) -> None:
        self.arena_samples(names[0])
        (self.folder / "arena" / f".{names[1]}.jsonl.99.tmp").write_text('{"half')
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Loop, "keep", die_inside) if place == "generation" else patch.setattr(Loop, "play", die_between)
        job.perform("rounds", tmp_path)
    assert Loop.play is play
    job.perform("rounds", tmp_path)
    assert differences(undisturbed("rounds"), snapshot(tmp_path)) == []


def test_answers_that_come_while_the_reward_model_is_fitted_count_in_the_next_round(
    tmp_path: Path, undisturbed: Undisturbed, cut_off: CutOff
) -> None:
    with cut_off(4):
        job.perform("rounds", tmp_path)
    with Store(tmp_path / "feedback.db") as store:
        late = [Verdict(query.id, "late", "left") for query in store.queries("train")]
        assert store.add_verdicts(late) == len(late) > 0
    job.perform("rounds", tmp_path)
    changed = differences(undisturbed("rounds"), snapshot(tmp_path))
    assert [name for name in changed if name.startswith(("round1/", "generations/round1"))] == []
    assert "round2/comparisons.jsonl" in changed


def test_answers_that_are_lost_are_noticed(
    tmp_path: Path, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    _stop_before_round(2, tmp_path, monkeypatch)
    for file in tmp_path.glob("feedback.db*"):
        file.unlink()
    job.perform("rounds", tmp_path)
    changed = differences(undisturbed("rounds"), snapshot(tmp_path))
    assert {
        "feedback.db",
        "round2/comparisons.jsonl",
        "generations/round2/model.safetensors: model.norm.weight",
    } <= set(changed)


def test_a_forgotten_kl_coefficient_of_the_round_before_is_noticed(
    tmp_path: Path, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    _stop_before_round(2, tmp_path, monkeypatch)
    monkeypatch.setattr(Loop, "last_kl_coef", lambda self, number: None)
    job.perform("rounds", tmp_path)
    changed = differences(undisturbed("rounds"), snapshot(tmp_path))
    assert "round2/ppo/metrics.jsonl" in changed
    assert [name for name in changed if name.startswith("round1/")] == []


def test_a_generation_that_is_lost_is_made_again_from_its_run(tmp_path: Path, undisturbed: Undisturbed) -> None:
    job.perform("rounds", tmp_path)
    shutil.rmtree(tmp_path / "generations" / "round2")
    (tmp_path / "result.json").unlink()
    job.perform("rounds", tmp_path)
    assert differences(undisturbed("rounds"), snapshot(tmp_path)) == []


@pytest.mark.parametrize(
    ("place", "nth", "where"),
    [("questions", 3, "between two stages"), ("reward", 6, "at step 1;"), ("ppo", 10, "at step 1;")],
)
def test_a_signal_in_any_stage_stops_the_loop(
    tmp_path: Path,
    undisturbed: Undisturbed,
    cut_off: CutOff,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    nth: int,
    where: str,
) -> None:
    # In a stage that is a run of its own the signal comes in the last update: that stage finishes, the next one stops.
    def stop() -> None:
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(Interrupted, match=where) as stopped:
        if place == "questions":
            asked, answer = [0], Oracle.answer

            def count(self: Oracle, query: Any) -> Verdict:
                asked[0] += 1
                if asked[0] == nth:
                    stop()
                return answer(self, query)

            patch.setattr(Oracle, "answer", count)
            job.perform("rounds", tmp_path)
        else:
            with cut_off(nth, do=stop):
                job.perform("rounds", tmp_path)
    assert stopped.value.exit_code == 143
    if place == "questions":
        with Store(tmp_path / "feedback.db", read_only=True) as store:
            assert len(store.verdicts()) == nth
    job.perform("rounds", tmp_path)
    assert differences(undisturbed("rounds"), snapshot(tmp_path)) == []


def test_texts_with_unusual_line_ends_are_read_back(tmp_path: Path) -> None:
    texts = ["a\u2028b", "c\x85d", "e\x0bf\x1cg", "h\r\ni"]
    with Run.open(tmp_path, kind="rounds", settings=job.SETTINGS["rounds"], quiet=True) as run:
        loop = job.loop(run, job.SETTINGS["rounds"])
        (tmp_path / "arena").mkdir()
        (tmp_path / "arena" / "sft.jsonl").write_text(
            "".join(json.dumps(Sample(Prompt("p"), text).to_json(), ensure_ascii=False) + "\n" for text in texts),
            encoding="utf-8",
        )
        assert [sample.text for sample in loop.arena_samples("sft")] == texts
        loop.store.close()


def test_a_killed_loop_is_continued_by_another_process(tmp_path: Path, undisturbed: Undisturbed) -> None:
    trial = kill.trial("rounds", tmp_path, undisturbed("rounds"), after=1.0, saving=False)
    assert trial.different == []


def _stop_before_round(number: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a loop that has done all rounds before `number`."""
    real = Loop.round

    def die(self: Loop, current: int) -> None:
        if current == number:
            raise Killed
        real(self, current)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Loop, "round", die)
        job.perform("rounds", folder)
