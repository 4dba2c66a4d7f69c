"""Nothing in the repository depends on one machine, names a registry, or is left for later; git ignores no source."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

# Each pattern is written so that it does not match itself.
FORBIDDEN = {
    "a package registry's host": re.compile(
        r"\b(pypi|test\.pypi|anaconda|npmjs|registry\.npmjs|unpkg|jsdelivr|pythonhosted|download\.pytorch)[.](org|com|net)\b"
    ),
    "a path of one machine": re.compile(r"(?<![\w.~*)}/-])/(?:work|root|home|Users)(?=/\w)"),
    "something left for later": re.compile(r"\b(?:TO[D]O|FIX[M]E|XX[X])\b"),
}


def files() -> list[Path]:
    """Every file that is, or would be, in the repository."""
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "-C", str(REPOSITORY), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, capture_output=True, check=True, text=True).stdout.split("\0")
    return [REPOSITORY / name for name in names if name and (REPOSITORY / name).is_file()]


def test_git_ignores_no_source() -> None:
    # A pattern such as `name/` in .gitignore also hides a room of that name; a clone would then lack it.
    kept = set(files())
    folders = (REPOSITORY / "src" / "backflip", REPOSITORY / "tests")
    hidden = [path for folder in folders for path in folder.rglob("*.py") if path not in kept]
    assert not hidden, "\n".join(map(str, hidden))


def problems(text: str) -> list[str]:
    """`line: what` for each forbidden thing in a text."""
    return [
        f"{number}: {what} ({found[0]})"
        for number, line in enumerate(text.splitlines(), 1)
        for what, pattern in FORBIDDEN.items()
        if (found := pattern.search(line))
    ]


def test_no_file_says_what_it_should_not() -> None:
    found = [
        f"{path.relative_to(REPOSITORY)}:{problem}"
        for path in files()
        for problem in problems(path.read_text(encoding="utf-8", errors="ignore"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "line",
    [
        "pip install --index-url https://py" + "pi.org/simple",
        "https://download.py" + "torch.org/whl/cpu",
        "open('/wo" + "rk/main/x')",
        "cd /ro" + "ot/project",
        "# TO" + "DO: later",
        "FIX" + "ME",
    ],
)
def test_forbidden_lines_are_noticed(line: str) -> None:
    assert problems(line)


@pytest.mark.parametrize(
    "line", ["tests/framework/x.py", "see ~/work/notes", "every TODOS list", "https://example.org/home/page"]
)
def test_ordinary_lines_pass(line: str) -> None:
    assert problems(line) == []
