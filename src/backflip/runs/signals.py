"""Ctrl-C and SIGTERM ask a run to stop after its current step; they never tear it.

The first signal sets a flag that the training loop looks at between steps. A second Ctrl-C stops at once with
`KeyboardInterrupt`. A second SIGTERM changes nothing: schedulers send several.

Runs nest: a loop's stages are runs of their own. A signal that came to one of them is passed on, so that it stops the
stage that follows as well.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopper:
    """The flag and its handlers. `received` is the first signal that came, or None."""

    def __init__(self, quiet: bool = False) -> None:
        self.received: signal.Signals | None = None
        self._quiet = quiet
        self._before: dict[signal.Signals, Any] = {}

    def install(self) -> None:
        """Take over SIGINT and SIGTERM; outside the main thread, where Python has no signals, do nothing."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._before[number] = signal.signal(number, self._handle)
            for outer in self._outer():
                self.received = self.received or outer.received

    def restore(self) -> None:
        """Give the signals back to whoever had them."""
        for outer in self._outer():
            outer.received = outer.received or self.received
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _outer(self) -> list[Stopper]:
        """The stopper of the run inside which this one runs, if any."""
        owners = (getattr(handler, "__self__", None) for handler in self._before.values())
        return [owner for owner in owners if isinstance(owner, Stopper)]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self.received = signal.Signals(number)
        if not self._quiet:
            # os.write, because a handler may run in the middle of a print to the same stream
            os.write(2, b"\nstopping after this step; press Ctrl-C again to stop at once\n")
