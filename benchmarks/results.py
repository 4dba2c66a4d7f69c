"""The file of results: every part of the benchmark adds what it measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results" / "cpu.json"


def load(path: Path) -> dict[str, Any]:
    """What has been measured so far."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"ratios": {}, "floor": {}}
    return found


def add(path: Path, section: str, values: dict[str, Any]) -> None:
    """Put `values` into a section; what stands there under other names stays."""
    results = load(path)
    results[section] = results.get(section, {}) | values
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")
