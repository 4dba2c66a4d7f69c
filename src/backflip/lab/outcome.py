"""What an experiment leaves behind: figures, and the lines it had to meet."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backflip.runs.atomic import write_atomic


@dataclass(frozen=True)
class Line:
    """One acceptance line: what was measured, the bar, and whether it was met.

    >>> at_least("win rate", 0.9, 0.8).passed
    True
    """

    name: str
    value: float
    bar: str
    passed: bool


def at_least(name: str, value: float, bar: float) -> Line:
    """A line met by values of `bar` or more."""
    return Line(name, value, f"≥ {bar:g}", value >= bar)


def at_most(name: str, value: float, bar: float) -> Line:
    """A line met by values of `bar` or less."""
    return Line(name, value, f"≤ {bar:g}", value <= bar)


def write_result(folder: Path, figures: Mapping[str, Any], lines: Sequence[Line]) -> bool:
    """Write FOLDER/result.json; whether every line was met."""
    accept = {line.name: {"value": line.value, "bar": line.bar, "pass": line.passed} for line in lines}
    text = json.dumps({"figures": figures, "accept": accept}, indent=1, ensure_ascii=False) + "\n"
    write_atomic(folder / "result.json", text)
    return all(line.passed for line in lines)
