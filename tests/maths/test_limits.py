"""The machine's limits: rates by a clock that is known, and figures that are figures."""

from __future__ import annotations

import itertools

import pytest
import torch

from backflip.maths import limits, matmul
from backflip.maths.limits import Limits


def test_a_rate_is_the_mean_or_the_best_of_the_calls_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    # Calls of 2, 1 and 3 seconds; the third ends past the 4 seconds asked for, and is the last.
    for sustained, expected in ((True, 6.0 / 2.0), (False, 6.0 / 1.0)):
        monkeypatch.setattr(limits.time, "perf_counter", iter([0.0, 2.0, 3.0, 6.0]).__next__)
        calls = itertools.count()
        assert limits.rate(calls.__next__, 6e9, seconds=4.0, sustained=sustained) == pytest.approx(expected)
        assert next(calls) == 4  # three that count and the first


def test_one_call_is_always_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits.time, "perf_counter", iter([0.0, 5.0]).__next__)
    assert limits.rate(lambda: None, 10e9, seconds=0.0, sustained=True) == pytest.approx(2.0)


def test_the_faster_library_is_named() -> None:
    assert Limits(100.0, 300.0, 700.0, 50.0).library == "onednn"
    assert Limits(100.0, 300.0, 700.0, 50.0).fp32_gflops == 300.0
    assert Limits(100.0, 0.0, 700.0, 50.0).library == "stock"


def test_what_is_measured_is_a_measurement_and_leaves_the_switch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.backends.mkldnn.matmul.fp32_precision if matmul.available() else None  # type: ignore[attr-defined]
    found = limits.measure(size=64, megabytes=1, seconds=0.001)
    assert all(0 <= figure < 1e6 for figure in found)
    assert found.stock_gflops > 0
    assert found.read_gb_s > 0
    if matmul.available():
        assert torch.backends.mkldnn.matmul.fp32_precision == before  # type: ignore[attr-defined]
    monkeypatch.setattr(matmul, "available", lambda: False)
    assert limits.measure(size=16, megabytes=1, seconds=0.0).onednn_gflops == 0.0
