"""The conductor of the benchmarks and its workers: turns are taken one by one, and a worker that dies is named."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.benchmarks.conftest import BENCHMARKS

WORKER = """
import sys, time
from pathlib import Path
sys.path.insert(0, {benchmarks!r})
from protocol import Turns
print("a library prints to standard output")
turns = Turns()
turns()
for step in range(3):
    time.sleep({seconds})
    print("and goes on printing")
    turns(tokens=step)
"""


def worker(script: Callable[[str], ModuleType], folder: Path, *, seconds: float) -> Any:
    """A worker process that sleeps through its steps, ready for the first."""
    (folder / "sleeper.py").write_text(WORKER.format(benchmarks=str(BENCHMARKS), seconds=seconds))
    made = script("worker").Worker([sys.executable, str(folder / "sleeper.py")], folder / "sleeper.log")
    made.ready()
    return made


def test_a_step_is_timed_where_it_happens(script: Callable[[str], ModuleType], tmp_path: Path) -> None:
    ours = worker(script, tmp_path, seconds=0.05)
    rows = [ours.step(), ours.step()]
    ours.close()
    assert [row["tokens"] for row in rows] == [0, 1]
    for row in rows:
        assert row["seconds"] >= 0.05
        assert row["peak_mb"] > 1
        assert row["foreign"] >= 0
    assert ours.process.returncode == 0


def test_the_peer_finds_only_the_packages_it_is_given(
    script: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "ours")
    code = "import json, os; print(json.dumps({'path': os.environ['PYTHONPATH']}))"
    for given, found in ((None, "ours"), ("theirs", "theirs"), ("", "")):
        side = script("worker").Worker([sys.executable, "-c", code], tmp_path / "log", pythonpath=given)
        assert side._read() == {"path": found}
        side.close()


def test_what_others_use_is_told_from_ones_own_work(script: Callable[[str], ModuleType]) -> None:
    others = script("worker").Others(os.getpid())
    others.begin()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        end = os.times().elapsed + 0.6
        while os.times().elapsed < end:
            pass
        share = others.share()
        busy.kill()
    assert 0.5 / (os.cpu_count() or 1) * 0.5 < share <= 1.05


class Fake:
    """A side whose steps take the seconds given, beside others that use the shares given, and which writes its name down whenever
    it takes one."""

    def __init__(self, name: str, seconds: list[float], order: list[str], foreign: list[float] | None = None) -> None:
        self.name, self.left, self.order = name, seconds, order
        self.foreign = foreign or [0.05] * len(seconds)

    def step(self) -> dict[str, float]:
        """The next step."""
        self.order.append(self.name)
        return {"seconds": self.left.pop(0), "peak_mb": 7.0, "foreign": self.foreign.pop(0)}


def test_medians_are_over_pairs_of_steps(
    script: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu, order = script("cpu"), list[str]()

    class Both:
        def __enter__(self) -> tuple[Fake, Fake]:
            return Fake("peer", [9.0, 3.0, 4.0, 5.0], order), Fake("ours", [9.0, 1.0, 2.0, 1.0], order)

        def __exit__(self, *problem: object) -> None:
            pass

    monkeypatch.setattr(cpu, "sides", lambda job, setting, home: Both())
    row = cpu.measure("sft", "fp32", tmp_path, steps=3, warm_up=1)
    assert (row["median"], row["low"], row["high"]) == (3.0, 2.0, 5.0)
    assert (row["peer_s"], row["ours_s"], row["foreign"], row["steps"]) == (4.0, 1.0, 0.05, 3.0)
    assert order == ["peer", "ours", "ours", "peer"] * 2


@contextlib.contextmanager
def pair(seconds: list[float], foreign: list[float]) -> Iterator[tuple[Fake, Fake]]:
    """A peer whose steps take `seconds`, beside others, and our side, whose steps take one second."""
    yield Fake("peer", seconds, [], foreign), Fake("ours", [1.0] * len(seconds), [])


def test_pairs_that_others_disturbed_are_taken_again(script: Callable[[str], ModuleType], tmp_path: Path) -> None:
    measure, left = script("cpu").measure, [9.0, 2.0, 7.0, 4.0, 6.0]
    options = {"steps": 3, "warm_up": 0}
    row = measure("sft", "fp32", tmp_path, **options, pair_of=lambda *_: pair(left, [0.3, 0.0, 0.11, 0.1, 0.0]))
    assert left == []
    assert (row["low"], row["median"], row["high"], row["steps"], row["disturbed"]) == (2.0, 4.0, 6.0, 3.0, 2.0)
    # On a machine that is never quiet the last pairs count after all, and the row shows why it is doubtful.
    row = measure("sft", "fp32", tmp_path, **options, pair_of=lambda *_: pair([float(n) for n in range(1, 10)], [0.5] * 9))
    assert (row["low"], row["high"], row["disturbed"]) == (7.0, 9.0, 6.0)
    assert row["foreign"] > 0.1


def test_a_side_that_ends_early_leaves_the_other_jobs(
    script: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cpu = script("cpu")

    def fails(*args: Any, **options: Any) -> dict[str, float]:
        raise SystemExit("a worker ended early")

    monkeypatch.setattr(cpu, "measure", fails)
    cpu.compare("sft/M/fp32", tmp_path, tmp_path / "results.json", steps=1, warm_up=0)
    assert capsys.readouterr().out == "sft/M/fp32: left out, a worker ended early\n"
    assert not (tmp_path / "results.json").exists()


def test_generation_needs_no_package_of_the_peers(script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("datasets", "trl", "pandas"):
        monkeypatch.setitem(sys.modules, name, None)
    assert callable(script("peer").generate)


def test_a_worker_that_ends_early_is_named(script: Callable[[str], ModuleType], tmp_path: Path) -> None:
    ours = worker(script, tmp_path, seconds=0.0)
    for _ in range(3):
        ours.step()
    with pytest.raises(SystemExit, match="ended early"):
        ours.step()
    ours.close()


def test_both_sides_have_every_job_and_setting_of_the_plan(script: Callable[[str], ModuleType]) -> None:
    plan, protocol = script("cpu").PLAN, script("protocol")
    jobs = {job for own in plan.values() for job in own}
    settings = {setting for own in plan.values() for row in own.values() for setting in row}
    for side in ("peer.py", "ours.py"):
        source = (BENCHMARKS / side).read_text(encoding="utf-8")
        assert all(f'"{job.split("-")[0]}"' in source for job in jobs), side
        assert all(f'"{setting}"' in source for setting in settings), side
    assert {job for job in jobs if not job.startswith("generate")} == set(protocol.BATCH)
    assert all(protocol.BATCH[job] % protocol.GROUP == 0 for job in ("grpo", "rloo"))


def test_the_reward_of_both_sides_is_a_share(script: Callable[[str], ModuleType]) -> None:
    assert script("protocol").even_share(["p"] * 3, ["w2 w3 w10 w5", "w8", ""]) == [0.5, 1.0, 0.0]
