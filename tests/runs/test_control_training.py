"""Real training paused and stopped from outside: no number changes, and a loop and its stages obey together."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.resume import job, kill
from tests.resume.compare import differences, snapshot

from backflip.errors import Interrupted
from backflip.runs import Run, catalogue, control

STEPS = {"sft": (2, 6), "reward": (2, 6), "ppo": (2, 5), "dpo": (2, 6)}
"""For each kind, the steps in whose log lines it is asked to pause and to stop; neither is one at which it would save."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(control, "POLL_S", 0.01)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, str]]:
    known: dict[str, dict[str, str]] = {}

    def run(kind: str) -> dict[str, str]:
        if kind not in known:
            folder = tmp_path_factory.mktemp("undisturbed")
            job.perform(kind, folder)
            known[kind] = snapshot(folder)
        return known[kind]

    return run


def at_step(monkeypatch: pytest.MonkeyPatch, kind: str, step: int, act: Callable[[Run], object]) -> None:
    """Do something in the middle of a step of the first run of that kind, once."""
    log, done = Run.log, []

    def logging(run: Run, number: int, metrics: dict[str, Any]) -> None:
        log(run, number, metrics)
        if run.kind == kind and number == step and not done:
            done.append(run)
            act(run)

    monkeypatch.setattr(Run, "log", logging)


def until(true: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


@pytest.mark.parametrize("kind", STEPS)
def test_a_run_that_was_paused_and_stopped_comes_to_the_same_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: Callable[[str], dict[str, str]], kind: str
) -> None:
    seen: list[tuple[str, int | None, int]] = []

    def resume() -> None:
        until(lambda: (tmp_path / ".paused").exists())
        time.sleep(0.2)
        card = catalogue.lookup(tmp_path, ".")
        newest = max(int(path.name.removeprefix("step-")) for path in (tmp_path / "checkpoints").iterdir())
        seen.append((card.state, card.step, newest))
        control.resume(tmp_path)

    paused, stopped = STEPS[kind]
    at_step(monkeypatch, kind, paused, lambda run: control.pause(run.folder, by="ann"))
    at_step(monkeypatch, kind, stopped, lambda run: control.stop(run.folder, by="bob"))
    helper = threading.Thread(target=resume)
    helper.start()
    with pytest.raises(Interrupted, match=f"^stopped at step {stopped} because bob asked; run the same command") as caught:
        job.perform(kind, tmp_path)
    helper.join()
    assert seen == [("paused", paused, paused)], "it stood still, with its last step saved"
    assert caught.value.exit_code == 143
    assert not (tmp_path / "control.json").exists()
    assert not (tmp_path / ".paused").exists()
    assert catalogue.lookup(tmp_path, ".").state == "stopped"
    job.perform(kind, tmp_path)
    assert differences(undisturbed(kind), snapshot(tmp_path)) == []


def test_a_wish_in_the_last_step_lets_the_run_finish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: Callable[[str], dict[str, str]]
) -> None:
    at_step(monkeypatch, "ppo", job.SETTINGS["ppo"].steps, lambda run: control.pause(run.folder))
    job.perform("ppo", tmp_path)
    assert not (tmp_path / "control.json").exists()
    assert differences(undisturbed("ppo"), snapshot(tmp_path)) == []


@pytest.mark.parametrize("asked", ["loop", "stage"])
def test_a_loop_and_its_stage_obey_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: Callable[[str], dict[str, str]], asked: str
) -> None:
    def folder(run: Run) -> Path:
        return run.folder if asked == "stage" else tmp_path

    states: dict[str, str] = {}

    def resume(place: Path) -> None:
        until(lambda: (tmp_path / ".paused").exists())
        states.update({card.id: card.state for card in catalogue.find(tmp_path)})
        control.resume(place)

    def pause(run: Run) -> None:
        control.pause(folder(run), by="ann")
        helpers.append(threading.Thread(target=resume, args=(folder(run),)))
        helpers[0].start()

    helpers: list[threading.Thread] = []
    at_step(monkeypatch, "reward", 2, pause)
    at_step(monkeypatch, "ppo", 3, lambda run: control.stop(folder(run), by="bob"))
    with pytest.raises(Interrupted, match=r"^stopped at step 3 because bob asked") as stopped:
        job.perform("rounds", tmp_path)
    helpers[0].join()
    assert states == {".": "paused", "round1/reward": "paused"}
    assert stopped.value.exit_code == 143
    assert not list(tmp_path.rglob("control.json"))
    assert not list(tmp_path.rglob(".paused"))
    job.perform("rounds", tmp_path)
    assert differences(undisturbed("rounds"), snapshot(tmp_path)) == []


def test_a_loop_stops_between_its_stages_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: Callable[[str], dict[str, str]]
) -> None:
    finish = Run.finish

    def finishing(run: Run, result: dict[str, Any]) -> None:
        finish(run, result)
        if run.kind == "ppo":
            monkeypatch.setattr(Run, "finish", finish)
            control.stop(tmp_path, by="ann")

    monkeypatch.setattr(Run, "finish", finishing)
    with pytest.raises(Interrupted, match=r"^stopped between two stages because ann asked") as stopped:
        job.perform("rounds", tmp_path)
    assert stopped.value.exit_code == 143
    job.perform("rounds", tmp_path)
    assert differences(undisturbed("rounds"), snapshot(tmp_path)) == []


@pytest.mark.slow
def test_another_process_is_paused_resumed_and_stopped(tmp_path: Path) -> None:
    def begin() -> subprocess.Popen[str]:
        process = kill.start("ppo", tmp_path)
        until(lambda: catalogue.lookup(tmp_path, ".").state == "running" if (tmp_path / "run.json").exists() else False)
        return process

    process = begin()
    control.pause(tmp_path, by="ann")
    until(lambda: catalogue.lookup(tmp_path, ".").state == "paused")
    size = (tmp_path / "metrics.jsonl").stat().st_size
    time.sleep(0.5)
    assert (tmp_path / "metrics.jsonl").stat().st_size == size
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    step = catalogue.lookup(tmp_path, ".").step
    assert f"stopped at step {step};" in errors

    process = begin()  # the pause still stands
    until(lambda: catalogue.lookup(tmp_path, ".").state == "paused")
    control.resume(tmp_path)
    until(lambda: catalogue.lookup(tmp_path, ".").state == "running")
    control.stop(tmp_path, by="bob")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "because bob asked" in errors
    assert catalogue.lookup(tmp_path, ".").state == "stopped"
