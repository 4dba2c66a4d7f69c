"""The studio's rooms and the front door start without torch, and quickly."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "backflip"
HEAVY = {"torch", "transformers", "tokenizers", "peft", "datasets"}
WITHOUT_TORCH = ("records", "errors", "seeds", "config", "settings", "store", "runs", "web", "cli", "client")
FEEDBACK_WITHOUT_TORCH = (
    "feedback.rows",
    "feedback.readers",
    "feedback.marks",
    "feedback.labelers",
    "feedback.terminal",
    "feedback.quality",
)


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def modules(name: str) -> list[str]:
    """The dotted names of a room's modules on disk; empty when the room does not exist."""
    place = PACKAGE / name.replace(".", "/")
    files = sorted(place.rglob("*.py")) if place.is_dir() else [f for f in [place.with_suffix(".py")] if f.exists()]
    parts = (file.relative_to(PACKAGE.parent).with_suffix("").parts for file in files)
    return [".".join(p[:-1] if p[-1] == "__init__" else p) for p in parts]


ROOMS = [name for name in (*WITHOUT_TORCH, *FEEDBACK_WITHOUT_TORCH) if modules(name)]


@pytest.mark.parametrize("room", ROOMS)
def test_room_imports_without_torch(room: str) -> None:
    loaded = python(f"import sys, {', '.join(modules(room))}; print(*sys.modules)").split()
    assert HEAVY.isdisjoint(loaded)


def test_the_check_sees_torch_where_it_is() -> None:
    assert not HEAVY.isdisjoint(python("import sys, backflip.maths.kl; print(*sys.modules)").split())


def test_import_backflip_is_quick_and_light() -> None:
    code = "import sys, time; t = time.time(); import backflip; print(time.time() - t, *sys.modules)"
    outputs = [python(code).split() for _ in range(3)]
    assert min(float(words[0]) for words in outputs) < 0.3
    assert HEAVY.isdisjoint(outputs[0])


def test_help_is_quick_and_light() -> None:
    # Processor seconds, not wall seconds: other work on the machine must not fail the test.
    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    code = "import sys; from backflip.cli.main import main; main(['--help']); print('loaded', *sys.modules)"
    seconds = []
    for _ in range(3):
        before = spent()
        loaded = python(code).split("loaded")[-1].split()
        seconds.append(spent() - before)
        assert HEAVY.isdisjoint(loaded)
    assert min(seconds) < 0.3
