"""The sandbox's benchmark: it times what it says, and a program that does not do its work stops it."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest


def test_executions_are_timed_one_by_one_and_side_by_side(script: Callable[[str], ModuleType]) -> None:
    benchmark = script("sandbox")
    found = benchmark.measure("bare", benchmark.bare, n=4, workers=2)
    assert (found.way, found.n) == ("bare", 4)
    assert 0 < found.p50_ms <= found.p95_ms
    assert found.per_second > 0
    assert str(found).startswith("bare ")


def test_a_wrong_output_stops_it(script: Callable[[str], ModuleType]) -> None:
    with pytest.raises(SystemExit, match="nothing: the program was not run as it should be"):
        script("sandbox").measure("nothing", lambda: "", n=1, workers=1)
