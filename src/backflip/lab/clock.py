"""How long the stages of an experiment took, over all the processes that worked on them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from backflip.runs.atomic import write_atomic


class Clock:
    """How long the stages of a seed took, summed over all the processes that worked on them, kept in a file.

    `now` is what it reads; with `time.process_time` it counts the seconds of all cores together, whoever else was using them.
    """

    def __init__(self, path: Path, now: Callable[[], float] = time.monotonic) -> None:
        self.path, self.now = path, now
        self.seconds: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}

    @contextmanager
    def running(self, stage: str) -> Iterator[None]:
        """Count the time inside the block, also when it is left by an error."""
        start = self.now()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + self.now() - start
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self.path, json.dumps(self.seconds) + "\n")
