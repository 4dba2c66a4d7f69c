"""math-verify at arm's length: it decides in a process of its own that can be stopped.

The library limits its time by a signal, which works in the main thread only and cannot interrupt one long step of arithmetic.
Here whoever waits, in any thread, ends the process when an answer takes too long and starts another for the next.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.util
import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

from backflip.errors import ConfigError

WORKER = Path(__file__).with_name("verify_worker.py")
START_SECONDS = 120.0


class Verifier:
    """Decides whether two mathematical answers are the same; may be called from any thread, one at a time decides.

    `seconds` is the limit of each step (reading the gold answer, reading the other, comparing).
    """

    def __init__(self, *, seconds: int = 2) -> None:
        self.seconds = seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def decide(self, gold: str, answer: str) -> bool | None:
        """Whether they are equal; None when that could not be found out: not understood, too slow, too large."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._start()
            line = self._ask(json.dumps({"gold": gold, "answer": answer}), 3 * self.seconds + 2)
            return json.loads(line) if line else None

    def close(self) -> None:
        """End the process, if one runs."""
        with self._lock:
            self._end()

    def _start(self) -> None:
        self._end()
        command = [sys.executable, "-P", str(WORKER), str(self.seconds)]
        self._process = process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, encoding="utf-8"
        )
        self._lines = queue.SimpleQueue()
        threading.Thread(target=_pass_on, args=(process, self._lines), daemon=True, name="math-verify").start()
        if self._next(START_SECONDS) is None:
            raise ConfigError("math-verify did not start; see what `python -c 'import math_verify'` says")

    def _ask(self, question: str, seconds: float) -> str | None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(question + "\n")
            self._process.stdin.flush()
        except OSError:  # it died of the question before
            self._end()
            return None
        return self._next(seconds)

    def _next(self, seconds: float) -> str | None:
        """The next line it says; when none comes in time, or it died, it is ended."""
        with contextlib.suppress(queue.Empty):
            line = self._lines.get(timeout=seconds)
            if line:
                return line
        self._end()
        return None

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError, ValueError):
                if pipe is not None:
                    pipe.close()


def require() -> None:
    """Raises ConfigError when math-verify is not installed."""
    if importlib.util.find_spec("math_verify") is None:
        raise ConfigError(
            "answers of mathematics are compared by math-verify, which is not installed; pip install 'backflip[maths]'"
        )


def shared() -> Verifier:
    """The verifier of this process; a forked process gets its own."""
    return _of_process(os.getpid())


@functools.lru_cache(maxsize=1)
def _of_process(process: int) -> Verifier:
    verifier = Verifier()
    atexit.register(lambda: verifier.close() if os.getpid() == process else None)  # not when a forked child leaves
    return verifier


def _pass_on(process: subprocess.Popen[str], lines: queue.SimpleQueue[str]) -> None:
    assert process.stdout is not None
    with contextlib.suppress(OSError, ValueError):  # it was closed while being read
        for line in process.stdout:
            lines.put(line)
    lines.put("")  # the end
