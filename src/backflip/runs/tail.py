"""Following a log while a run writes it: only what is new, only whole lines, and word when the log was cut back.

A cursor says how far a reader came and carries a digest of what stood before that place. A run that resumes cuts its logs and
does some steps again; its new lines may end at the very byte where the old ones did, so a place alone would not do. The digest
covers the last `WINDOW` bytes, which is all of a short log; in a longer one the steps done again reach to its end, so they
stand inside the window as well.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from backflip.runs.atomic import open_regular
from backflip.runs.logs import parse_line

WINDOW = 1 << 16
"""Bytes before a cursor that its digest covers."""

MOST = 1 << 22
"""Bytes read at once, unless a single line is longer."""

Row = dict[str, Any]


class Tail(NamedTuple):
    """What a log holds after a cursor.

    `cursor` is where to go on next time. With `reset`, the reader's rows are no longer in the log: it forgets them, and
    `rows` begin at the log's first line. `damaged` whole lines were passed over. With `more`, reading again at once gives
    further rows.
    """

    rows: list[Row]
    cursor: str = ""
    reset: bool = False
    damaged: int = 0
    more: bool = False


def read(path: Path, after: str = "", *, most: int = MOST) -> Tail:
    """The rows of a log after the cursor `after`, "" for its beginning. Never raises for what a file or a cursor holds.

    A line that is still being written is left for the next time. Rows are as in the file: numbers in them need not be finite.
    """
    try:
        with open(open_regular(path), "rb") as file:
            start = _place(file, after)
            file.seek(start or 0)
            block, more = _whole_lines(file, most)
            rows, damaged = _rows(block)
            cursor = _cursor(file, (start or 0) + len(block))
    except FileNotFoundError:
        return Tail([], reset=bool(after))
    except OSError:  # it may well be readable again
        return Tail([], after)
    return Tail(rows, cursor, start is None, damaged, more)


def read_all(path: Path) -> Tail:
    """All rows of a log, read from its beginning."""
    found = read(path)
    while found.more:
        further = read(path, found.cursor)
        kept = [] if further.reset else found.rows
        found = further._replace(rows=kept + further.rows, damaged=further.damaged + (0 if further.reset else found.damaged))
    return found


def last_rows(path: Path, most: int = WINDOW) -> tuple[list[Row], int]:
    """The rows within the last `most` bytes of a log, and how many damaged lines stand among them."""
    try:
        with open(open_regular(path), "rb") as file:
            start = max(0, file.seek(0, 2) - most)
            file.seek(start)
            block = file.read(most)
    except OSError:
        return [], 0
    begin = block.find(b"\n") + 1 if start else 0
    return _rows(block[begin : block.rfind(b"\n") + 1])


def _place(file: BinaryIO, after: str) -> int | None:
    """The byte at which a cursor goes on; None when what it has seen is no longer there."""
    if not after:
        return 0
    found = re.fullmatch(r"(\d{1,15})-[0-9a-f]{16}", after)
    if found is None or int(found[1]) > file.seek(0, 2) or _cursor(file, int(found[1])) != after:
        return None
    return int(found[1])


def _cursor(file: BinaryIO, offset: int) -> str:
    start = max(0, offset - WINDOW)
    file.seek(start)
    return f"{offset}-{hashlib.blake2b(file.read(offset - start), digest_size=8).hexdigest()}"


def _whole_lines(file: BinaryIO, most: int) -> tuple[bytes, bool]:
    """The next lines that end, about `most` bytes of them, and whether the file goes on after what was read."""
    block = file.read(most)
    full = len(block) == most
    while full and b"\n" not in block:
        further = file.read(len(block))
        full = bool(further)
        block += further
    return block[: block.rfind(b"\n") + 1], full and b"\n" in block


def _rows(block: bytes) -> tuple[list[Row], int]:
    lines = block.split(b"\n")[:-1]
    rows = [row for row in map(_row, lines) if row is not None]
    return rows, len(lines) - len(rows)


def _row(line: bytes) -> Row | None:
    row = parse_line(line)
    if row is None or isinstance(row["step"], bool):
        return None
    whole: Row = sendable(row) if b"\\u" in line else row
    return whole


def sendable(value: Any) -> Any:
    """The same JSON value with a mark in place of each half of a character, which a policy may write and no page can show."""
    if isinstance(value, str):
        return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in value)
    if isinstance(value, dict):
        return {sendable(name): sendable(inner) for name, inner in value.items()}
    return [sendable(inner) for inner in value] if isinstance(value, list) else value
