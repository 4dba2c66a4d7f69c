"""The benchmark's scripts as modules: they import each other by their plain names, as scripts of one folder do."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
NAMES = {path.stem for path in BENCHMARKS.glob("*.py")}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Import a script by its name; it is forgotten again after the test."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module
    for name in NAMES:
        sys.modules.pop(name, None)
