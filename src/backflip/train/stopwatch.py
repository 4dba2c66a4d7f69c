"""How long the parts of a step take."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator


class Stopwatch:
    """Seconds by part, since `restart`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def restart(self) -> None:
        """Forget what was measured."""
        self.seconds = {}

    @contextlib.contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Count the time inside the block for `part`."""
        start = time.perf_counter()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - start
