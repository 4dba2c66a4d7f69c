"""Append-only logs of a run: one JSON object per line, each with the step it belongs to.

A line is handed to the operating system at once, so it survives the death of the process; `sync` puts everything on
the disk, which a checkpoint does before it is written. What a run logged after its last checkpoint is cut off by
`rewind` when the run resumes and does those steps again.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from backflip.errors import DataError, NumericsError
from backflip.runs.atomic import storage, write_atomic


def numbers(step: int, values: Mapping[str, Any], what: str = "metric") -> dict[str, int | float]:
    """`values` as plain Python numbers. Raises NumericsError for a value that is not a finite number."""
    plain: dict[str, int | float] = {}
    for name, value in values.items():
        number = int(value) if isinstance(value, bool | int) else float(value)
        if not math.isfinite(number):
            raise NumericsError(
                f"{what} {name!r} is {number} at step {step}; the run stops here, and its last checkpoint is intact"
            )
        plain[str(name)] = number
    return plain


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a log, without a torn last line; none when there is no such file.

    Raises DataError naming the line when a line before the last is damaged.
    """
    rows: list[dict[str, Any]] = []
    if not path.exists():
        return rows
    with storage(f"{path} cannot be read"):
        lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline was never finished
        row = parse_line(line)
        if row is None:
            if number == len(lines) - 1:
                break
            raise DataError(f"{path}, line {number} is damaged; mend or delete that line")
        rows.append(row)
    return rows


def parse_line(line: bytes) -> dict[str, Any] | None:
    """The row in a line of a log; None when the line is damaged."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None


def as_number(value: object) -> float | None:
    """A number from a file as a float, not finite where it is too large for one; None for anything else, yes and no included."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


class JsonLog:
    """One log file. The file appears with its first line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    def append(self, step: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows, `step` first in each. All of them or, when the disk is full, none (StorageError)."""
        try:
            text = "".join(json.dumps({"step": step, **row}, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        except ValueError as problem:
            raise NumericsError(f"{self.path.name}, step {step}: a value is not finite ({problem})") from problem
        data = text.encode("utf-8", errors="backslashreplace")
        with storage(f"{self.path} cannot be written"):
            fd = self._open()
            before = os.fstat(fd).st_size
            try:
                written = 0
                while written < len(data):
                    written += os.write(fd, data[written:])
            except OSError:
                os.ftruncate(fd, before)  # no half line for the next one to be glued to
                raise

    def sync(self) -> None:
        """Return when every line is on the disk."""
        if self._fd is not None:
            with storage(f"{self.path} cannot be written"):
                os.fsync(self._fd)

    def rewind(self, step: int) -> None:
        """Drop every line of a later step, and a torn end.

        Raises DataError when a damaged line stands before one that is kept: that is not the mark of a crash.
        """
        if not self.path.exists():
            return
        self.close()
        with storage(f"{self.path} cannot be read"):
            old = self.path.read_bytes()
        kept: list[bytes] = []
        damaged = 0
        for number, line in enumerate(old.split(b"\n")[:-1], start=1):
            row = parse_line(line)
            if row is None:
                damaged = damaged or number
            elif row["step"] <= step:
                if damaged:
                    raise DataError(f"{self.path}, line {damaged} is damaged; mend or delete that line")
                kept.append(line + b"\n")
        new = b"".join(kept)
        if new != old:
            write_atomic(self.path, new)

    def close(self) -> None:
        """Let go of the file; `append` opens it again."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _open(self) -> int:
        if self._fd is None:
            fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":
                os.ftruncate(fd, self.path.read_bytes().rfind(b"\n") + 1)
            self._fd = fd
        return self._fd


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises DataError when it cannot be read or holds something else."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError) as problem:
        raise DataError(f"{path} cannot be read: {problem}") from problem
    if not isinstance(values, dict):
        raise DataError(f"{path} should hold a JSON object")
    return values
