"""Holds the rooms whose numbers people rely on to a floor of coverage: `python coverage_floor.py REPORT.json`."""

from __future__ import annotations

import json
import sys
from pathlib import PurePath
from typing import Any

FLOOR = 90.0
ROOMS = ("maths", "train", "feedback", "store", "runs")


def line_coverage(report: dict[str, Any]) -> dict[str, float | None]:
    """Per cent of statements run in each room; None for a room without any statement."""
    share: dict[str, float | None] = {}
    for room in ROOMS:
        totals = [
            file["summary"]
            for name, file in report["files"].items()
            if ("backflip", room) in zip(PurePath(name).parts, PurePath(name).parts[1:], strict=False)
        ]
        statements = sum(total["num_statements"] for total in totals)
        covered = sum(total["covered_lines"] for total in totals)
        share[room] = 100 * covered / statements if statements else None
    return share


def main(path: str) -> int:
    """Print one line per room; 1 when any is below the floor or missing."""
    with open(path, encoding="utf-8") as file:
        share = line_coverage(json.load(file))
    for room, percent in share.items():
        shown = "no lines found" if percent is None else f"{percent:5.1f} %"
        print(f"coverage of {room:<9} {shown}{'' if _enough(percent) else f'   below the floor of {FLOOR:.0f} %'}")
    return 0 if all(map(_enough, share.values())) else 1


def _enough(percent: float | None) -> bool:
    return percent is not None and percent >= FLOOR


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
