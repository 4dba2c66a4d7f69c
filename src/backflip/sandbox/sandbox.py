"""The sandbox: the strongest driver that works here, proved by canaries, and a pool of fork servers behind it."""

from __future__ import annotations

import contextlib
import hashlib
import platform
import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, Self

from backflip.errors import ConfigError, SandboxError
from backflip.sandbox import canaries, drivers, seccomp
from backflip.sandbox.limits import Limits, Result
from backflip.sandbox.server import Server

ATTEMPTS = 2
"""How often a program is run whose server dies: a machine out of memory kills one now and then, a second time is no chance."""


class Sandbox:
    """Runs Python programs that nobody has read.

    >>> with Sandbox() as sandbox:
    ...     sandbox.run("print(input()[::-1])", "olleh").stdout
    'hello\\n'

    The drivers of `drivers.STRONGEST_FIRST` are tried in turn, or the one named `driver` alone; each must refuse every canary.
    Where none does, SandboxError says what is missing. `unsafe=True` confines nothing but time and memory and tells so in
    `describe()`; it is for code somebody trusts.

    `preload` names modules that every program finds imported (so that it does not pay for them); with `packages` programs may
    import what is installed in this environment. Up to `workers` programs run at once, however many threads call `run`. A
    server is replaced after `per_server` executions; with 1, each has a fresh interpreter in namespaces of its own.
    """

    def __init__(
        self,
        *,
        driver: str | None = None,
        unsafe: bool = False,
        workers: int = 1,
        per_server: int = 10_000,
        preload: Sequence[str] = drivers.COMMON,
        packages: bool = False,
    ) -> None:
        if workers < 1 or per_server < 1:
            raise ConfigError(f"a sandbox needs at least 1 of workers and of per_server, not {workers} and {per_server}")
        self._per_server, self._preload = per_server, tuple(preload)
        self._paths = drivers.site_packages() if packages else ()
        self._turn = threading.BoundedSemaphore(workers)
        self._idle: list[Server] = []
        self._close = weakref.finalize(self, _close_all, self._idle)
        self._driver, self._canaries = self._choose(driver, unsafe)

    def _choose(self, wanted: str | None, unsafe: bool) -> tuple[drivers.Driver, dict[str, str]]:
        """The first driver that works and lets no canary through."""
        if wanted is not None and wanted not in drivers.STRONGEST_FIRST:
            raise ConfigError(f"no sandbox driver is called {wanted!r}; there are {' and '.join(drivers.STRONGEST_FIRST)}")
        if unsafe:
            candidates = [drivers.unsafe]
        else:
            candidates = [make for name, make in drivers.STRONGEST_FIRST.items() if wanted in (None, name)]
        reasons = [] if sys.platform == "linux" else [f"this is {sys.platform} and every driver needs Linux"]
        for make in candidates if not reasons else []:
            try:
                self._driver = make(self._paths)
                verdicts = canaries.sing(lambda code, limits: self.run(code, limits=limits))
            except SandboxError as error:
                reasons.append(str(error))
                continue
            if unsafe or canaries.all_refused(verdicts):
                return self._driver, verdicts
            reasons.append(f"{self._driver.name} failed its canaries ({', '.join(f'{n}: {v}' for n, v in verdicts.items())})")
            self.close()
        raise SandboxError(
            f"model-written code cannot be run safely on this machine: {'; '.join(reasons)}. Install bubblewrap or use a kernel "
            "with Landlock (docs/sandbox.md); unsafe=True runs it without confinement"
        )

    def run(self, code: str, stdin: str = "", limits: Limits | None = None, *, entry: str = "", nonce: str = "") -> Result:
        """Run a program to its end, with `stdin` to read, in a process of its own; may be called from many threads.

        With an `entry`, the name of a function in it, see `inside.run`. Raises SandboxError when the sandbox itself broke twice:
        whatever the program did then, it has no result.
        """
        limits = limits or Limits()
        for attempt in range(ATTEMPTS):
            try:
                with self._server() as server:
                    return server.run(code, stdin, limits, entry=entry, nonce=nonce)
            except SandboxError:
                if attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError("not reached")

    @contextlib.contextmanager
    def _server(self) -> Iterator[Server]:
        """A server for one execution: an idle one or a new one; one that broke, or has served enough, is closed."""
        with self._turn:
            try:
                server = self._idle.pop()
            except IndexError:
                server = Server(self._driver, preload=self._preload, paths=self._paths)
            try:
                yield server
            except BaseException:
                server.close()
                raise
            if server.executions >= self._per_server:
                server.close()
            else:
                self._idle.append(server)

    def describe(self) -> dict[str, Any]:
        """What a run's record should say of the sandbox it ran code in."""
        confined = self._driver.name != "unsafe"
        code = seccomp.program(platform.machine(), threads=False) if confined else b""
        return {
            "driver": self._driver.name,
            "landlock_abi": self._driver.landlock_abi,
            "seccomp": hashlib.sha256(code).hexdigest()[:16] if confined else "none",
            "kernel": platform.release(),
            "machine": platform.machine(),
            "python": platform.python_version(),
            "canaries": dict(self._canaries),
        }

    def close(self) -> None:
        """End the idle servers; one that is running something is ended by whoever waits for it."""
        _close_all(self._idle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _close_all(servers: list[Server]) -> None:
    while servers:
        servers.pop().close()
