"""Pausing and stopping a run from another process, by a wish in its folder that the loop reads between two steps.

    control.json    {"wish": "pause", "by": "ann", "at": "2025-01-31T12:00:00+00:00"}

The file is there while a wish stands. `resume` deletes it, and so does a run that obeys a wish to stop, so that the next
start of the same command goes on. The latest wish counts. A run that waits keeps an empty file `.paused` in its folder, which
tells it from one that has not seen the wish yet; once the folder's lock is free it means nothing.

Runs nest: a loop's stages are runs of their own. A stage obeys what is asked of it and of the runs it is part of, and takes
them along, as a signal would.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from backflip.errors import ConfigError
from backflip.runs.atomic import open_regular, storage, write_atomic
from backflip.runs.lock import held

NAME = "control.json"
PAUSED = ".paused"
POLL_S = 0.2
"""Seconds between two looks at the file while a run waits."""

_MOST_BYTES = 4096  # a wish is a line; what is larger is none
_NAME_CHARS = 80


@dataclass(frozen=True, slots=True)
class Wish:
    """What someone asked of a run: `Wish("pause", "ann", "2025-01-31T12:00:00+00:00")`, the time in UTC."""

    kind: Literal["pause", "stop"]
    by: str
    at: str


def pause(folder: str | Path, by: str = "someone") -> Wish:
    """Ask the run in `folder` to wait after its current step. Raises ConfigError when no process is running it."""
    return _ask(Path(folder), "pause", by)


def stop(folder: str | Path, by: str = "someone") -> Wish:
    """Ask the run in `folder` to save its current step and end, as SIGTERM would.

    Raises ConfigError when no process is running it.
    """
    return _ask(Path(folder), "stop", by)


def resume(folder: str | Path) -> Wish | None:
    """Take back what was asked of the run in `folder`, and return it; a paused run goes on."""
    wish = standing(folder)
    with storage(f"{Path(folder) / NAME} cannot be deleted"):
        (Path(folder) / NAME).unlink(missing_ok=True)
    return wish


def standing(folder: str | Path) -> Wish | None:
    """What is asked of the run in `folder`; None when nothing is, or the file cannot be understood."""
    try:
        with open(open_regular(Path(folder) / NAME), "rb") as file:
            values = json.loads(file.read(_MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    kind = values.get("wish") if isinstance(values, dict) else None
    if kind not in ("pause", "stop"):
        return None
    return Wish(kind, _printable(values.get("by")), str(values.get("at", ""))[:_NAME_CHARS])


def is_control(name: str) -> bool:
    """Whether a file of that name belongs to this module and says nothing about the run itself."""
    return name in (NAME, PAUSED) or (name.startswith(f".{NAME}.") and name.endswith(".tmp"))


class Control:
    """What is asked of one open run. `stop` is the wish that ended it, once there was one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stop: Wish | None = None
        self._pause: Wish | None = None
        self._seen: tuple[int, int, int] | None = None
        self._outer: tuple[Control, ...] = ()
        self._left = False

    def enter(self) -> None:
        """From now on the run is open, inside those that this thread has open already."""
        self._outer = _thread.runs
        _thread.runs = (self, *self._outer)

    def leave(self, *, finished: bool) -> None:
        """The run is closed. A wish to stop that came too late is forgotten; in a finished run, any wish."""
        _thread.runs = tuple(run for run in _thread.runs if run is not self)
        if self._left:  # the folder may be another process's by now
            return
        self._left = True
        wish = standing(self.folder)
        if wish is not None and (finished or wish.kind == "stop"):
            _delete(self.folder / NAME)

    def forget_the_past(self) -> None:
        """At the start: a wish to stop was meant for the process before this one, and nobody waits."""
        wish = standing(self.folder)
        if wish is not None and wish.kind == "stop":
            _delete(self.folder / NAME)
        _delete(self.folder / PAUSED)

    def look(self) -> None:
        """See what is asked now: one `stat` for this run and each it is part of, and a read where something changed."""
        runs = (self, *self._outer)
        for run in runs:
            run._read()
        found = next((run.stop for run in runs if run.stop is not None), None)
        for run in runs:
            run.stop = run.stop or found

    @property
    def pausing(self) -> Wish | None:
        """The wish to wait that stood when it was last looked."""
        return next((run._pause for run in (self, *self._outer) if run._pause is not None), None)

    def wait(self, say: Callable[[str], None], ended: Callable[[], bool]) -> None:
        """Return when nobody asks to wait any more, when someone asks to stop, or when `ended` (a signal came)."""
        wish = self.pausing
        if wish is None:
            return
        say(f"paused by {wish.by}; it goes on when it is resumed, Ctrl-C ends it")
        marks = [run.folder / PAUSED for run in (self, *self._outer)]
        try:
            for mark in marks:
                with contextlib.suppress(OSError):  # only shown to others: a full disk must not end a run that rests
                    mark.touch()
            while self.pausing is not None and self.stop is None and not ended():
                time.sleep(POLL_S)
                self.look()
        finally:
            for mark in marks:
                _delete(mark)
        if self.stop is None and not ended():
            say("going on")

    def _read(self) -> None:
        try:
            status = os.stat(self.folder / NAME)
        except OSError:
            self._seen = self._pause = None
            return
        now = (status.st_mtime_ns, status.st_ino, status.st_size)
        if now == self._seen:
            return
        self._seen = now
        wish = standing(self.folder)
        self._pause = wish if wish is not None and wish.kind == "pause" else None
        if wish is not None and wish.kind == "stop":
            self.stop = self.stop or wish
            _delete(self.folder / NAME)


class _Thread(threading.local):
    """The runs that a thread has open, the innermost first."""

    runs: tuple[Control, ...] = ()


_thread = _Thread()


def _ask(folder: Path, kind: Literal["pause", "stop"], by: str) -> Wish:
    if not (folder / "run.json").exists():
        raise ConfigError(f"{folder} is not a run folder; give the folder that holds its run.json")
    if not held(folder):
        raise ConfigError(f"the run in {folder} is not running, so it cannot be asked to {kind}")
    wish = Wish(kind, _printable(by), datetime.now(UTC).isoformat(timespec="seconds"))
    text = json.dumps({"wish": wish.kind, "by": wish.by, "at": wish.at}, ensure_ascii=False)
    write_atomic(folder / NAME, text + "\n")
    return wish


def _printable(name: object) -> str:
    """A name as it may stand in a terminal: one line, no control characters."""
    plain = "".join(c for c in str(name or "") if c.isprintable()).strip()
    return plain[:_NAME_CHARS] or "someone"


def _delete(path: Path) -> None:
    """Delete a file that may be gone already, or that this process may not touch."""
    with contextlib.suppress(OSError):
        path.unlink()
