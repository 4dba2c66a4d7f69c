"""How far a run is: a bar on a terminal, a plain line now and then in a log file, nothing when quiet."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Protocol, TextIO

_EVERY_S = 30.0  # the longest silence in a log file while steps are being done
_LINES = 10  # lines in a log file for a whole run whose steps are quick


class Bar(Protocol):
    """What `Run.progress` gives."""

    def advance(self, **metrics: float) -> None:
        """One more step is done; these are its numbers."""


@contextlib.contextmanager
def progress(total: int, description: str, *, done: int = 0, quiet: bool = False, stream: TextIO | None = None) -> Iterator[Bar]:
    """A bar from `done` to `total` on `stream` (standard error)."""
    stream = stream or sys.stderr
    if quiet:
        yield _Silent()
    elif not stream.isatty():
        yield _Lines(total, description, done, stream)
    else:
        with _terminal(total, description, done, stream) as bar:
            yield bar


def show(metrics: dict[str, float]) -> str:
    """`kl 0.123 reward 1.4e-05`: the last part of each name and three or four digits of each value."""
    return "  ".join(f"{name.rsplit('/', 1)[-1]} {value:.4g}" for name, value in metrics.items())


class _Silent:
    def advance(self, **metrics: float) -> None:
        """Say nothing."""


class _Lines:
    def __init__(
        self, total: int, description: str, done: int, stream: TextIO, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._total, self._description, self._done, self._stream, self._clock = total, description, done, stream, clock
        self._said = clock()

    def advance(self, **metrics: float) -> None:
        """Count the step; print a line at every tenth of the whole and after a long silence."""
        self._done += 1
        tenth = self._done * _LINES // max(self._total, 1) > (self._done - 1) * _LINES // max(self._total, 1)
        if tenth or self._clock() - self._said >= _EVERY_S:
            self._said = self._clock()
            print(f"{self._description} {self._done}/{self._total}  {show(metrics)}".rstrip(), file=self._stream)
            self._stream.flush()


@contextlib.contextmanager
def _terminal(total: int, description: str, done: int, stream: TextIO) -> Iterator[Bar]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[metrics]}", markup=False),
    )
    with Progress(*columns, console=Console(file=stream)) as display:
        task = display.add_task(description, total=total, completed=done, metrics="")

        class Rich:
            def advance(self, **metrics: float) -> None:
                """Move the bar by one step."""
                display.update(task, advance=1, metrics=show(metrics))

        yield Rich()
