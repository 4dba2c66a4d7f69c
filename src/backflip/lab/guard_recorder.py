"""A guard that only writes down: every look of a run with its gold, so that any rule can be tried on it afterwards.

RUN/looks/STEP.json
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from backflip.monitor.seen import to_json
from backflip.runs.atomic import write_atomic
from backflip.runs.watching import Look, Ruling

Gold = Callable[[Sequence[str], Sequence[str]], list[float]]
"""Prompts and completions to their hidden worth."""


class Recorder:
    """A `Guard` that lets everything go on."""

    def __init__(self, folder: Path, gold: Gold) -> None:
        self.folder, self.gold, self.steps = folder, gold, list[int]()
        self.ruling = Ruling("go", 0)

    def measure_by(self, look: Look) -> None:
        """Nothing is measured."""

    def look(self, look: Look) -> Ruling:
        """Write the look down."""
        self.folder.mkdir(parents=True, exist_ok=True)
        row = to_json(look) | {"gold": self.gold(look.prompts, look.completions)}
        write_atomic(self.folder / f"{look.step:06d}.json", json.dumps(row, ensure_ascii=False) + "\n")
        self.steps.append(look.step)
        return self.ruling

    def state(self) -> dict[str, Any]:
        """Which looks there were."""
        return {"steps": self.steps}

    def take_up(self, state: Mapping[str, Any]) -> None:
        """Go on after them."""
        self.steps = list(state["steps"])

    def report(self) -> dict[str, Any]:
        """Which looks there were; nothing was found."""
        return {"steps": self.steps, "findings": []}


class Seen(NamedTuple):
    """A look and, apart from it, what no rule is shown: its gold."""

    look: Look
    gold: list[float]

    @property
    def worth(self) -> float:
        """The mean gold of the look."""
        return sum(self.gold) / len(self.gold)


def read(folder: Path) -> list[Seen]:
    """Every look of a run, in order."""
    found = []
    for path in sorted(folder.glob("*.json")):
        row = json.loads(path.read_text(encoding="utf-8"))
        gold = row.pop("gold")
        found.append(Seen(Look(**row), gold))
    return found
