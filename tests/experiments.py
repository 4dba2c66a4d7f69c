"""What tests of the lab's experiments share: a result with one figure spoilt, and a finished run told again."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def spoilt(result: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """A copy of a seed's figures with another one at `path`."""
    bad = copy.deepcopy(result)
    place = bad
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    return bad


def before_and_again(folder: Path, run: Callable[[], object], minutes: str) -> list[dict[str, Any]]:
    """`result.json` as it was and after `run`, without the times, of which `minutes` is the bar."""
    found = [json.loads((folder / "result.json").read_text())]
    run()
    found.append(json.loads((folder / "result.json").read_text()))
    for result in found:
        del result["figures"]["seeds"][0]["seconds"]
        del result["accept"][minutes]
    return found
