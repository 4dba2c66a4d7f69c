"""Rooms import downwards only. The table is the one in the design; the imports are read from the source."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "backflip"

BASE = {"records", "errors", "seeds", "config", "settings", "algorithms", "job_settings"}
ROLLOUT = BASE | {"maths", "policies", "envs"}
MAY_IMPORT: dict[str, set[str]] = {
    **dict.fromkeys(BASE, BASE),
    "maths": set(),
    "client": {"records", "errors"},
    **dict.fromkeys(("store", "runs"), BASE),
    **dict.fromkeys(("policies", "worlds", "sandbox"), BASE | {"maths"}),
    "rewards": BASE | {"maths", "policies", "sandbox"},
    "envs": BASE | {"maths", "rewards"},
    "rollout": ROLLOUT,
    "feedback": {"records", "errors", "seeds", "maths", "store"},
    "train": ROLLOUT | {"rollout", "feedback", "rewards", "runs"},
    "monitor": BASE | {"maths", "rewards", "runs"},
    "arena": BASE | {"rollout", "feedback", "store", "runs", "maths"},
    "rounds": ROLLOUT | {"rollout", "rewards", "train", "arena", "feedback", "store", "runs", "monitor"},
    "cluster": BASE | {"rollout", "rewards", "train", "runs"},
    "web": BASE | {"store", "runs", "feedback", "arena", "maths"},
}
ANYTHING = {"lab", "cli", "demo", "jobs", "api", "__init__"}
MAY_IMPORT["__main__"] = {"cli"}
IMPORTED_BY_NOBODY = {"lab", "cli"}
MATHS_STANDS_ON = {"torch", "numpy"}


def sources(package: Path) -> Iterator[tuple[str, Path]]:
    """(room, file) for every source file of the package."""
    for path in sorted(package.rglob("*.py")):
        yield path.relative_to(package).parts[0].removesuffix(".py"), path


def imported(path: Path, package: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything a file imports, wherever in it the import stands, relative ones resolved."""
    here = ("backflip", *path.relative_to(package).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = here[: len(here) - node.level + 1] if node.level else ()
            origin = ".".join([*start, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and "import" in ast.unparse(node.func):
            names = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
            yield from ((node.lineno, name) for name in names)


def violations(package: Path) -> list[str]:
    """One line for each import that points up or sideways, and for each room the table does not know."""
    found = []
    for room, path in sources(package):
        if room not in MAY_IMPORT and room not in ANYTHING:
            found.append(f"{room}: not a room of the design")
            continue
        for line, name in imported(path, package):
            first, _, rest = name.partition(".")
            if first != "backflip" or rest == "__version__":
                continue
            target = rest.split(".")[0]
            if target in IMPORTED_BY_NOBODY:
                allowed = room in (target, "__main__")
            else:
                allowed = room in ANYTHING or target == room or target in MAY_IMPORT[room]
            if not allowed:
                found.append(f"{path.relative_to(package)}:{line}: {room} may not import {name}")
    return found


def test_rooms_import_downwards_only() -> None:
    found = violations(PACKAGE)
    assert not found, "\n".join(found)


def test_maths_stands_on_torch_and_numpy_only() -> None:
    foreign = [
        f"{path.name}:{line}: {name}"
        for room, path in sources(PACKAGE)
        if room == "maths"
        for line, name in imported(path, PACKAGE)
        if name.split(".")[0] not in MATHS_STANDS_ON | {"backflip"} | sys.stdlib_module_names
    ]
    assert foreign == []


def test_the_table_itself_points_downwards() -> None:
    below = {room: allowed - BASE - {room} for room, allowed in MAY_IMPORT.items()}
    placed: set[str] = set()
    while len(placed) < len(below):
        ready = {room for room in below if room not in placed and below[room] - placed <= IMPORTED_BY_NOBODY}
        assert ready, f"a circle among {sorted(set(below) - placed)}"
        placed |= ready


def test_every_way_of_importing_upwards_is_noticed(tmp_path: Path) -> None:
    upward = {
        "maths/plain.py": "import backflip.errors\n",
        "store/from_room.py": "from backflip.maths.kl import k1\n",
        "store/from_top.py": "from backflip import maths\n",
        "store/public_name.py": "from backflip import Store\n",
        "store/relative.py": "from ..maths import kl\n",
        "runs/typing_only.py": "if TYPE_CHECKING:\n    from backflip.store import S\n",
        "arena/inside.py": "def f():\n    from backflip.train import online\n",
        "rounds/called.py": "import importlib\nimportlib.import_module('backflip.cli.main')\n",
        "cli/lab.py": "import backflip.lab\n",
        "attic/new.py": "",
    }
    allowed = {
        "train/online.py": "from backflip.rollout.local import sample\nfrom . import sft\nfrom .sft import fit\n",
        "cli/demo.py": "from backflip.train import online\n",
        "runs/version.py": "from backflip import __version__\nimport json\n",
        "lab/paper.py": "import backflip\n",
    }
    for name, text in (upward | allowed).items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    caught = {line.split(":")[0] for line in violations(tmp_path)}
    assert caught == {name if name != "attic/new.py" else "attic" for name in upward}
