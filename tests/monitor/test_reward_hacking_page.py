"""docs/reward-hacking.md against the code: every alarm with what it asks for, and the settings it names."""

from __future__ import annotations

import re
from pathlib import Path

from backflip.config import leaves
from backflip.monitor import KINDS
from backflip.settings import Watch

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "reward-hacking.md").read_text(encoding="utf-8")


def table(page: str) -> dict[str, tuple[str, str]]:
    """Of every alarm what it asks for and its sentence."""
    section = page.split("## Every alarm\n")[1].split("\n## ")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("| `")]
    assert all(len(row) == 5 and all(row) for row in cells)
    return {row[0].strip("`"): (row[1], row[2]) for row in cells}


def test_every_alarm_is_told_as_it_is() -> None:
    assert table(PAGE) == KINDS


def test_every_setting_it_names_is_one() -> None:
    named = set(re.findall(r"`?watch\.([a-z_]+)", PAGE))
    assert named <= {leaf.dotted for leaf in leaves(Watch)}
    assert {"every", "judges", "threshold", "tolerance", "kl_stop"} <= named


def test_a_page_that_tells_less_is_noticed() -> None:
    shorter = "\n".join(line for line in PAGE.splitlines() if not line.startswith("| `labels`"))
    assert table(shorter).keys() == KINDS.keys() - {"labels"}
