"""The conductor of the benchmarks and its workers: turns are taken one by one, and a worker that dies is named."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

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


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module benchmarks/cpu.py."""
    spec = importlib.util.spec_from_file_location("benchmark_cpu", BENCHMARKS / "cpu.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def worker(cpu: Any, folder: Path, *, seconds: float, name: str = "worker.py") -> Any:
    """A worker process that sleeps through its steps."""
    (folder / name).write_text(WORKER.format(benchmarks=str(BENCHMARKS), seconds=seconds))
    cpu.HERE = folder
    return cpu.Worker(Path(sys.executable), name, "job", "setting", folder)


def test_a_step_is_timed_where_it_happens(cpu: Any, tmp_path: Path) -> None:
    ours = worker(cpu, tmp_path, seconds=0.05)
    rows = [ours.step(), ours.step()]
    ours.close()
    assert [row["tokens"] for row in rows] == [0, 1]
    for row in rows:
        assert row["seconds"] >= 0.05
        assert row["peak_mb"] > 1
        assert row["foreign"] >= 0
    assert ours.process.returncode == 0


def test_medians_are_over_pairs_of_steps(cpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        def __init__(self, seconds: list[float]) -> None:
            self.left = seconds

        def step(self) -> dict[str, float]:
            return {"seconds": self.left.pop(0), "peak_mb": 7.0, "foreign": 0.25}

        def __enter__(self) -> tuple[Fake, Fake]:
            return self, Fake([9.0, 1.0, 2.0, 1.0])

        def __exit__(self, *problem: object) -> None:
            pass

    monkeypatch.setattr(cpu, "sides", lambda job, setting, home: Fake([9.0, 3.0, 4.0, 5.0]))
    row = cpu.measure("sft", "fp32", tmp_path, steps=3, warm_up=1)
    assert (row["median"], row["low"], row["high"]) == (3.0, 2.0, 5.0)
    assert (row["peer_s"], row["ours_s"], row["foreign"], row["steps"]) == (4.0, 1.0, 0.25, 3.0)


def test_a_worker_that_ends_early_is_named(cpu: Any, tmp_path: Path) -> None:
    ours = worker(cpu, tmp_path, seconds=0.0)
    for _ in range(3):
        ours.step()
    with pytest.raises(SystemExit, match="ended early"):
        ours.step()
    ours.close()
