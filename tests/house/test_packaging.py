"""The files around the package agree with each other: pins, versions, the coverage floor."""

from __future__ import annotations

import importlib.metadata
import json
import re
import runpy
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import backflip

REPOSITORY = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pins() -> dict[str, str]:
    """Package → version from constraints.txt."""
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    rows = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in rows}


def closure(requirements: list[str]) -> set[str]:
    """Every installed package that the requirements need on this machine, directly or through others."""
    waiting = [(Requirement(text), "") for text in requirements]
    needed: set[tuple[str, str]] = set()
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        for wanted in ("", *requirement.extras):
            if (name, wanted) not in needed:
                needed.add((name, wanted))
                waiting += [(Requirement(text), wanted) for text in importlib.metadata.requires(name) or []]
    return {name for name, _ in needed}


def test_every_package_that_setup_installs_is_pinned() -> None:
    needed = closure(PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"])
    accelerators = {name for name in needed if re.match(r"nvidia|cuda|triton|intel|pytorch-triton", name)}
    assert len(needed) > 20
    assert needed - accelerators - set(pins()) == set()


def test_pins_satisfy_what_the_package_asks_for() -> None:
    extras = [PROJECT["optional-dependencies"][name] for name in ("dev", "data")]
    asked = [Requirement(text) for text in sum(extras, list(PROJECT["dependencies"]))]
    wrong = [str(r) for r in asked if not r.specifier.contains(pins()[canonicalize_name(r.name)])]
    assert wrong == []
    assert not any("+" in version for version in pins().values()), "a local version exists on one machine only"


def test_the_version_is_said_once() -> None:
    assert backflip.__version__ == PROJECT["version"]


def floor_script() -> dict[str, object]:
    return runpy.run_path(str(REPOSITORY / ".ci" / "coverage_floor.py"))


def report(**covered: int) -> dict[str, object]:
    """A coverage report with one 100-statement file in each named room."""
    files = {
        f"src/backflip/{room}/file.py": {"summary": {"num_statements": 100, "covered_lines": lines}}
        for room, lines in covered.items()
    }
    return {"files": files | {"src/backflip/cli/maths.py": {"summary": {"num_statements": 100, "covered_lines": 0}}}}


@pytest.mark.parametrize(
    ("covered", "code"),
    [
        ({"maths": 100, "train": 90, "feedback": 95, "store": 90, "runs": 91}, 0),
        ({"maths": 100, "train": 89, "feedback": 95, "store": 90, "runs": 91}, 1),
        ({"maths": 100, "train": 100, "feedback": 100, "store": 100}, 1),
    ],
)
def test_the_coverage_floor_holds_each_room(covered: dict[str, int], code: int, tmp_path: Path) -> None:
    path = tmp_path / "coverage.json"
    path.write_text(json.dumps(report(**covered)), encoding="utf-8")
    assert floor_script()["main"](str(path)) == code  # type: ignore[operator]


def test_the_coverage_floor_adds_up_the_files_of_a_room() -> None:
    made = report(maths=100)
    made["files"]["src/backflip/maths/deep/er.py"] = {"summary": {"num_statements": 300, "covered_lines": 0}}  # type: ignore[index]
    share = floor_script()["line_coverage"](made)  # type: ignore[operator]
    assert share["maths"] == 25.0
    assert share["train"] is None
