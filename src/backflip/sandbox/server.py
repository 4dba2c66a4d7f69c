"""Our end of one fork server: start it, have it run a program, notice its death, end it."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Self

from backflip.errors import SandboxError
from backflip.sandbox import drivers, inside, landlock, seccomp
from backflip.sandbox.limits import Limits, Result, Status

START_S = 30.0
GRACE_S = 10.0
CHUNK = 1 << 16


class Server:
    """A process that forks one confined child for each program; not to be used by two threads at once.

    Raises SandboxError, here and in `run`, when the process does not start, dies, hangs or cannot confine a child.
    """

    def __init__(self, driver: drivers.Driver, *, preload: Sequence[str] = (), paths: tuple[str, ...] = ()) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control, self.executions = ours, 0
        with tempfile.TemporaryFile() as said:
            with theirs:
                self._process = subprocess.Popen(
                    driver.command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=said,
                    env=drivers.ENVIRONMENT, cwd="/", start_new_session=True,
                )  # fmt: skip
            try:
                self._begin(driver, preload, paths)
            except (OSError, SandboxError) as error:
                self.close()
                said.seek(0)
                last = said.read().decode(errors="replace").strip().rpartition("\n")[2]
                raise SandboxError(f"{driver.name} did not start: {last or error}") from None

    def _begin(self, driver: drivers.Driver, preload: Sequence[str], paths: tuple[str, ...]) -> None:
        """Hand over the rules and the filters, and wait until the server is ready."""
        with contextlib.ExitStack() as stack:
            filters, rules = {}, []
            if driver.name != "unsafe":
                machine = platform.machine()
                filters = {n: seccomp.program(machine, threads=t).hex() for n, t in (("alone", False), ("threads", True))}
            if driver.landlock_abi:
                rules.append(landlock.ruleset(drivers.readable(paths), driver.landlock_abi))
                stack.callback(os.close, rules[0])
            settings = {"environment": list(drivers.ENVIRONMENT), "paths": paths, "preload": list(preload), "filters": filters}
            socket.send_fds(self._control, [json.dumps(settings).encode()], rules)
        self._control.settimeout(START_S)
        if self._control.recv(inside.MESSAGE) != inside.READY:
            raise SandboxError("the server ended at once")

    def run(self, code: str, stdin: str, limits: Limits, *, entry: str = "", nonce: str = "") -> Result:
        """Run a program; see `Sandbox.run`."""
        self.executions += 1
        program = json.dumps({"code": code, "entry": entry, "nonce": nonce}).encode()
        with contextlib.ExitStack() as stack:
            with contextlib.ExitStack() as theirs:
                (out, out_end), (err, err_end) = _pipe(stack, theirs), _pipe(stack, theirs)
                given = [_memory(theirs, program), _memory(theirs, stdin.encode("utf-8", "surrogatepass")), out_end, err_end]
                try:
                    socket.send_fds(self._control, [json.dumps(asdict(limits)).encode()], given)
                except OSError as error:
                    raise SandboxError(f"the sandbox's server is gone ({error.strerror}); nothing was run") from None
            reply, streams, flooded = self._listen(out, err, limits)
        if reply["failure"]:
            raise SandboxError(f"a program could not be confined, so it was not run: {reply['failure']}")
        return Result(
            _status(reply, limits, flooded),
            streams[0].decode(errors="replace"),
            streams[1].decode(errors="replace"),
            reply["cpu_s"],
            reply["wall_s"],
            reply["max_rss"],
        )

    def _listen(self, out: int, err: int, limits: Limits) -> tuple[Mapping[str, Any], list[bytearray], bool]:
        """Collect what the program writes until the server says that it has ended."""
        control, streams = self._control.fileno(), {out: bytearray(), err: bytearray()}
        poll = select.poll()
        for descriptor in (*streams, control):
            poll.register(descriptor, select.POLLIN)
        flooded, answered, deadline = False, False, time.monotonic() + limits.wall_s + GRACE_S
        while not answered:
            ready = {descriptor for descriptor, _ in poll.poll(max(0.0, deadline - time.monotonic()) * 1000)}
            if not ready:
                raise SandboxError(f"the sandbox's server has not answered for {limits.wall_s + GRACE_S:g} s; nothing is known")
            answered = control in ready
            for descriptor in streams.keys() if answered else ready:
                more = _drain(descriptor, streams[descriptor], limits.output_bytes)
                if not more and not answered:
                    poll.unregister(descriptor)
            if not flooded and any(len(stream) > limits.output_bytes for stream in streams.values()):
                flooded = True
                with contextlib.suppress(OSError):  # a server that is gone is noticed below
                    self._control.send(inside.STOP)
        reply = json.loads(self._receive())
        for stream in streams.values():
            del stream[limits.output_bytes :]
        return reply, list(streams.values()), flooded

    def _receive(self) -> bytes:
        try:
            message = self._control.recv(inside.MESSAGE)
        except OSError:
            message = b""
        if not message:
            raise SandboxError("the sandbox's server died while it ran a program; the program has no result")
        return message

    def close(self) -> None:
        """End the server and whatever it runs."""
        self._control.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _status(reply: Mapping[str, Any], limits: Limits, flooded: bool) -> Status:
    if flooded:
        return "output"
    if reply["timeout"] or reply["cpu_s"] > limits.cpu_s:
        return "timeout"
    if reply["exit"] < 0:
        return "crash"
    return "ok" if reply["exit"] == 0 else "error"


def _pipe(ours: contextlib.ExitStack, theirs: contextlib.ExitStack) -> tuple[int, int]:
    """A pipe: the reading end, which does not block, is closed with `ours`, the writing end with `theirs`."""
    reading, writing = os.pipe()
    ours.callback(os.close, reading)
    theirs.callback(os.close, writing)
    os.set_blocking(reading, False)
    return reading, writing


def _memory(stack: contextlib.ExitStack, content: bytes) -> int:
    """A file in memory with this content, to be read from its start; closed with the stack."""
    descriptor = os.memfd_create("sandbox", os.MFD_CLOEXEC)
    stack.callback(os.close, descriptor)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _drain(descriptor: int, into: bytearray, limit: int) -> bool:
    """Read what is there, up to a little more than the limit; whether more may come and is wanted."""
    while len(into) <= limit:
        try:
            chunk = os.read(descriptor, CHUNK)
        except BlockingIOError:
            return True
        if not chunk:
            return False
        into += chunk
    return False
