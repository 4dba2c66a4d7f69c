"""The benchmark on a GPU, without one: it says so, and its two sides read the same texts."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_without_a_cuda_device_it_says_so_in_one_sentence(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "gpu.py"), "--output", str(tmp_path / "gpu.json")],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "needs a CUDA device" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_both_sides_read_groups_of_one_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("benchmark_gpu_side", BENCHMARKS / "gpu_side.py")
    assert spec is not None
    assert spec.loader is not None
    side = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(side)
    rows = [f"row {i}" for i in range(20)]
    assert side.turn_of(rows, 16, 1) == [f"row {i % 20}" for i in range(16, 32)]
    assert side.shared(16) == [0] * 8 + [8] * 8
