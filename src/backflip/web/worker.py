"""A policy that talks, in a process of its own: `backflip chat POLICY --json`, asked line by line.

The studio itself loads no model. The process ends when the studio does, however it ends: its input closes.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-m", "backflip", "chat", "{policy}", "--json")
GRACE_S = 2.0  # from asking the process to end to ending it


class Crashed(Exception):
    """The process could not start, has ended, or was ended because it took too long. The message is a sentence."""


class Worker:
    """One process. Its methods may be called from any thread, `ask` from one at a time. Raises Crashed when it cannot start."""

    def __init__(self, policy: Path, command: Sequence[str] = COMMAND) -> None:
        self.policy = policy
        try:
            self._process = subprocess.Popen(
                [part.replace("{policy}", str(policy)) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, text=True, encoding="utf-8", errors="replace", bufsize=1,
                start_new_session=True,  # Ctrl-C in the studio's terminal is the studio's; it ends this one itself
            )  # fmt: skip
        except OSError as problem:
            raise Crashed(f"the policy's process could not be started: {problem.strerror}") from problem
        self._said: deque[str] = deque(maxlen=20)
        self._late = False
        self._listener = threading.Thread(target=self._listen, name="chat errors", daemon=True)
        self._listener.start()

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def ask(self, request: Mapping[str, Any], *, seconds: float) -> dict[str, Any]:
        """The answer to a request with an id. Raises Crashed when there is none within `seconds`."""
        timer = threading.Timer(seconds, self._too_late)
        timer.daemon = True
        timer.start()
        try:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            with contextlib.suppress(BrokenPipeError):  # it has ended; why is said below
                self._process.stdin.write(json.dumps(request) + "\n")
                self._process.stdin.flush()
            for line in self._process.stdout:
                with contextlib.suppress(ValueError):
                    answer = json.loads(line)
                    if isinstance(answer, dict) and answer.get("id") == request["id"]:
                        return answer
        finally:
            timer.cancel()
        raise Crashed(self._why(seconds))

    def stop(self) -> None:
        """End the process, and wait until it has ended."""
        if self.alive:
            self._signal(signal.SIGTERM)
            try:
                self._process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
        self._process.wait()
        self._listener.join(GRACE_S)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def kill(self) -> None:
        """End the process at once; whoever waits for an answer hears of it."""
        self._signal(signal.SIGKILL)

    def _too_late(self) -> None:
        self._late = True
        self.kill()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _listen(self) -> None:
        assert self._process.stderr is not None
        with contextlib.suppress(ValueError):  # closed while reading
            self._said.extend(line.strip() for line in self._process.stderr if line.strip())

    def _why(self, seconds: float) -> str:
        if self._late:
            return f"the policy gave no answer within {seconds:g} seconds and was stopped; ask for fewer tokens"
        code = self._process.wait()
        self._listener.join(GRACE_S)
        last = self._said[-1] if self._said else ""
        if last.startswith("backflip: "):
            return last.removeprefix("backflip: ")
        ended = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"the policy's process ended ({ended})" + (f": {last[:300]}" if last else "")
