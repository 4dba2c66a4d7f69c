"""Canaries: six attacks that are tried through a sandbox before it is trusted. All must fail, and an honest program must work.

Each is a program that prints `LEAKED` when it gets what it should not, and `refused` when it is refused; it is looked at from
outside, too: a file that should not be there, a connection that should not come.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from backflip.sandbox.limits import Limits, Result

HONEST = "print(6 * 7)"
GUARD = """
try:
{body}
except BaseException as error:
    print("refused", type(error).__name__)
else:
    print("LEAKED")
"""

READ = "open({secret!r}).read()"
CONNECT = "import socket; socket.create_connection(('127.0.0.1', {port}), timeout=1)"
FORK = "import os; os.fork() or os._exit(0)"
WRITE = "open({forbidden!r}, 'w').write('x')"
SIGNAL = "import os; os.kill({pid}, 0)"
TRACE = """import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(0x4206, {pid}, 0, 0): raise OSError(ctypes.get_errno(), 'ptrace')"""  # PTRACE_SEIZE, which stops nobody

ATTACKS = {"read": READ, "connect": CONNECT, "fork": FORK, "write": WRITE, "signal": SIGNAL, "ptrace": TRACE}
"""What each canary tries, as a line in a `try`."""

LIMITS = Limits(cpu_s=5.0, wall_s=20.0)


def sing(run: Callable[[str, Limits], Result]) -> dict[str, str]:
    """Try every canary through `run`; for each `refused` or what went wrong, and `honest`: `works` or what it did."""
    honest = run(HONEST, LIMITS)
    verdicts = {"honest": "works" if (honest.status, honest.stdout) == ("ok", "42\n") else _told(honest)}
    with _targets() as (values, listener):
        for name, attack in ATTACKS.items():
            result = run(GUARD.format(body="    " + attack.format(**values)), LIMITS)
            refused = result.status == "ok" and result.stdout.startswith("refused") and "LEAKED" not in result.stdout
            verdicts[name] = "refused" if refused else f"LEAKED or unclear: {_told(result)}"
        if _came(listener):
            verdicts["connect"] = "LEAKED: a connection came"
        if os.path.exists(str(values["forbidden"])):
            verdicts["write"] = "LEAKED: the file is there"
    return verdicts


def all_refused(verdicts: dict[str, str]) -> bool:
    """Whether the honest program worked and no attack did."""
    return all(verdict == ("works" if name == "honest" else "refused") for name, verdict in verdicts.items())


@contextlib.contextmanager
def _targets() -> Iterator[tuple[dict[str, object], socket.socket]]:
    """A secret, a place to write, a port that listens, and this process."""
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as listener:
        os.chmod(folder, 0o755)
        secret = Path(folder) / "secret"
        secret.write_text(secrets.token_hex())
        yield {
            "secret": str(secret),
            "forbidden": str(Path(folder) / "written"),
            "port": listener.getsockname()[1],
            "pid": os.getpid(),
        }, listener  # fmt: skip


def _came(listener: socket.socket) -> bool:
    listener.setblocking(False)
    try:
        connection, _ = listener.accept()
    except BlockingIOError:
        return False
    connection.close()
    return True


def _told(result: Result) -> str:
    return f"{result.status} {(result.stdout or result.stderr)[:80]!r}"
