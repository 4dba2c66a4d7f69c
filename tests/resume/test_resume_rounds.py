"""The outer loop, cut off in every stage: it goes on where it was and ends as if it had never been."""

from __future__ import annotations

import functools
import itertools
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
from backflip.records import Prompt, Query, Sample, Verdict
from backflip.rewards.learned import RewardModel
from backflip.rounds import Loop, deciding
from backflip.rounds import loop as room
from backflip.runs import Run, atomic
from backflip.runs.checkpoints import Checkpoints
from backflip.seeds import Seeds
from backflip.store import Store
from backflip.train.learner import Learner
from tests.resume import job, kill
from tests.resume.compare import differences, snapshot
from tests.resume.conftest import Undisturbed
from tests.resume.cutting import Killed, cut_off, dying, signalled

PLACES: list[tuple[Any, str]] = [
    (Learner, "update"), (Oracle, "answer"), (Store, "add_queries"), (Store, "add_verdicts"), (Run, "finish"),
    (Checkpoints, "_put"), (LanguagePolicy, "save"), (RewardModel, "save"), (room, "write_atomic"),
    (room, "generate_samples"), (atomic, "fsync_dir"), (deciding, "write_atomic"),
]  # fmt: skip
"""Calls before and after which a loop may die; together they are in every stage of it."""


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """`fused(n)`: the loop dies at the n-th of the moments before and after a call of `PLACES`, or not if n < 0."""
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
def test_what_was_half_written_is_written_again(tmp_path: Path, undisturbed: Undisturbed, place: str) -> None:
    keep = Loop.keep

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

    with dying((Loop, "keep", die_inside) if place == "generation" else (Loop, "play", die_between)):
        job.perform("rounds", tmp_path)
    job.perform("rounds", tmp_path)
    assert differences(undisturbed("rounds"), snapshot(tmp_path)) == []


def test_answers_that_come_while_the_reward_model_is_fitted_count_in_the_next_round(
    tmp_path: Path, undisturbed: Undisturbed
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


def test_answers_that_are_lost_are_noticed(tmp_path: Path, undisturbed: Undisturbed) -> None:
    _stop_before_round(2, tmp_path)
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
    _stop_before_round(2, tmp_path)
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


@pytest.mark.parametrize("update", [6, 10], ids=["in the last update of the reward model", "in the first step of ppo"])
def test_a_signal_in_a_stage_stops_the_loop(tmp_path: Path, undisturbed: Undisturbed, update: int) -> None:
    # The last update of a stage lets that stage finish; then it is the next one that stops, after one step.
    with signalled(update, signal.SIGTERM), pytest.raises(Interrupted, match="at step 1;") as stopped:
        job.perform("rounds", tmp_path)
    assert stopped.value.exit_code == 143
    job.perform("rounds", tmp_path)
    assert differences(undisturbed("rounds"), snapshot(tmp_path)) == []


def test_a_signal_while_questions_are_answered_keeps_the_answers(
    tmp_path: Path, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answer = itertools.count(1), Oracle.answer

    def stop_at_third(self: Oracle, query: Query) -> Verdict:
        if next(asked) == 3:
            signal.raise_signal(signal.SIGINT)
        return answer(self, query)

    monkeypatch.setattr(Oracle, "answer", stop_at_third)
    with pytest.raises(Interrupted, match="stopped between two stages; run the same command again") as stopped:
        job.perform("rounds", tmp_path)
    assert stopped.value.exit_code == 130
    with Store(tmp_path / "feedback.db", read_only=True) as store:
        assert len(store.verdicts()) == 3
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


def _stop_before_round(number: int, folder: Path) -> None:
    """Leave a loop that has done all rounds before `number`."""
    real = Loop.round

    def die(self: Loop, current: int) -> None:
        if current == number:
            raise Killed
        real(self, current)

    with dying((Loop, "round", die)):
        job.perform("rounds", folder)
