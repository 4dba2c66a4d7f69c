"""Every attack of the threat model is refused, or ends by a limit, in every way of confining; and honest programs work."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from backflip.sandbox import Limits, Sandbox
from backflip.sandbox.drivers import interpreter
from tests.sandbox.attacks import ATTACKS
from tests.sandbox.conftest import CONFINEMENTS

QUICK = Limits(cpu_s=5.0, wall_s=30.0, memory_mb=300, output_bytes=200_000)
SLOW = Limits(cpu_s=0.2, wall_s=1.0, memory_mb=300)
SECRET = "the launch code is 0000"


@dataclass
class World:
    """What a program might want: files, sockets and a process of the same user."""

    targets: dict[str, object]
    listeners: list[socket.socket]
    victim: subprocess.Popen[bytes]
    mine: Path
    folder: Path
    before: list[str]
    status: os.stat_result

    def untouched(self) -> bool:
        """Whether nothing came in, nothing was written and nobody was hurt."""
        left = [path for path in ("/dev/shm/x", "/tmp/x", "/tmp/l", "/tmp/0", "result.json", "x") if os.path.lexists(path)]
        return not left and not self.calls() and self.victim.poll() is None and self.same_files()

    def same_files(self) -> bool:
        """Whether the folder and the file in it are as they were."""
        now, then = self.mine.stat(), self.status
        kept = [(s.st_mode, s.st_uid, s.st_size, s.st_mtime_ns, s.st_ino, s.st_nlink) for s in (now, then)]
        return kept[0] == kept[1] and sorted(os.listdir(self.folder)) == self.before and self.mine.read_text() == "mine"

    def calls(self) -> list[str]:
        """Who connected or sent something."""
        found = []
        for listener in self.listeners:
            try:
                listener.recv(1) if listener.type == socket.SOCK_DGRAM else listener.accept()[0].close()
                found.append(str(listener))
            except BlockingIOError:
                pass
        return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    mine, secret = folder / "mine", folder / "secret"
    mine.write_text("mine")
    secret.write_text(SECRET)
    (folder / "link").symlink_to(secret)
    tcp, udp = socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    unix, abstract, datagram = (socket.socket(socket.AF_UNIX, kind) for kind in (1, 1, 2))
    unix.bind(str(folder / "socket"))
    abstract.bind(f"\0backflip {os.getpid()}")
    datagram.bind(f"\0backflip datagram {os.getpid()}")
    for listener in (unix, abstract):
        listener.listen()
    listeners = [tcp, udp, unix, abstract, datagram]
    for listener in listeners:
        listener.setblocking(False)
    victim = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    targets: dict[str, object] = {
        "secret": str(secret), "link": str(folder / "link"), "folder": str(folder), "mine": str(mine), "pid": os.getpid(),
        "victim": victim.pid, "tcp": tcp.getsockname()[1], "udp": udp.getsockname()[1], "unix": str(folder / "socket"),
        "abstract": f"\0backflip {os.getpid()}", "datagram": f"\0backflip datagram {os.getpid()}", "python": interpreter(),
    }  # fmt: skip
    yield World(targets, listeners, victim, mine, folder, sorted(os.listdir(folder)), mine.stat())
    victim.kill()
    victim.communicate()
    for listener in listeners:
        listener.close()


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("confinement", CONFINEMENTS)
def test_an_attack_is_contained(confinement: str, name: str, sandboxes: Callable[[str], Sandbox], world: World) -> None:
    attack = ATTACKS[name]
    if attack.slow and confinement not in CONFINEMENTS[:2]:
        pytest.skip("limits of time do not depend on the kernel's age")
    limits = SLOW if attack.slow else QUICK
    if attack.threads:
        limits = Limits(cpu_s=5.0, wall_s=30.0, memory_mb=300, threads=True)
    result = sandboxes(confinement).run(attack.program(world.targets), limits=limits)
    told = f"{result.status}: {result.stdout[-300:]} {result.stderr[-300:]}"
    assert result.status in attack.ends, told
    assert "LEAKED" not in result.stdout, told
    assert SECRET not in result.stdout + result.stderr
    assert "SyntaxError" not in result.stderr
    if result.status == "ok":
        assert "\nrefused" in "\n" + result.stdout, told
        # An invalid argument, a bad address or no such process would mean that the kernel had begun to do it.
        assert not any(f"[Errno {number}]" in result.stdout for number in (errno.EINVAL, errno.EFAULT, errno.ESRCH)), told
    assert len(result.stdout) <= limits.output_bytes
    assert result.max_rss < 400 << 20
    assert result.wall_s < limits.wall_s + 5
    assert world.untouched()
    assert sandboxes(confinement).run("print('next')").stdout == "next\n"


def test_the_attacks_work_where_nothing_confines(world: World) -> None:
    # An attack that fails everywhere would prove nothing. Only those that hurt nobody are tried without confinement.
    harmless = [
        "secret", "secret through a symlink", "password file", "listing of a folder", "list of processes",
        "command line of the parent", "descriptors of the parent", "TCP", "UDP", "Unix socket", "abstract Unix socket",
        "abstract Unix socket by a pair", "kill the trainer", "shell", "another interpreter", "threads", "System V semaphores",
        "session of its own", "trace",
    ]  # fmt: skip
    with Sandbox(unsafe=True, preload=("ctypes", "socket")) as sandbox:
        results = {name: sandbox.run(ATTACKS[name].program(world.targets), limits=QUICK) for name in harmless}
        assert sandbox.describe()["driver"] == "unsafe"
        assert "LEAKED" in sandbox.describe()["canaries"]["read"]
    leaked = [name for name, result in results.items() if "LEAKED" in result.stdout]
    assert set(harmless) - set(leaked) <= {"trace"}  # which some kernels refuse between strangers
    assert world.calls()


def test_a_call_of_the_32_bit_pointer_abi_kills(sandbox: Sandbox) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("x32 is an ABI of x86-64")
    result = sandbox.run("import ctypes\nctypes.CDLL(None).syscall(ctypes.c_long(0x40000000 + 39))\nprint('LEAKED')")
    assert (result.status, result.stdout) == ("crash", "")


def test_nothing_of_earlier_programs_is_left_in_the_server(sandbox: Sandbox) -> None:
    marker = "zebra" + "crossing"
    sandbox.run(f"x = {marker!r}; print(x)", stdin=marker)
    search = """
import ctypes, gc, sys
found = [o for o in gc.get_objects() if isinstance(o, (str, bytes, dict)) and 'zebra' + 'crossing' in str(o)[:10000]]
frame, texts = sys._getframe(), []
while frame:
    texts.append(str(frame.f_locals)); frame = frame.f_back
print(len([t for t in texts if ('zebra' + 'crossing') in t]), len(found))
"""
    result = sandbox.run(search, limits=Limits(cpu_s=5, wall_s=30))
    assert result.stdout == "0 0\n", result.stderr


def test_patched_clocks_change_no_measurement(sandbox: Sandbox) -> None:
    code = """
import time, sys
busy = time.process_time
start = busy()
time.perf_counter = time.process_time = time.time = lambda: 0.0
sys.settrace(lambda *a: None)
while busy() - start < 0.15: pass
"""
    result = sandbox.run(code)
    assert result.status == "ok"
    assert result.cpu_s >= 0.15
    assert result.wall_s >= 0.15


def test_honest_programs_work_as_they_do_outside(sandbox: Sandbox) -> None:
    code = """
import asyncio, bisect, collections, dataclasses, datetime, decimal, fractions, functools, hashlib, heapq, itertools, json, math
import random, re, statistics, string, sys, time, typing, unicodedata, zoneinfo
async def later():
    await asyncio.sleep(0.001)
    return 1
if __name__ == "__main__":
    numbers = [int(x) for x in input().split()]
    for line in sys.stdin:
        numbers.append(int(line))
    print(sum(numbers), asyncio.run(later()), statistics.median(numbers), "é", flush=True)
    print("to stderr", file=sys.stderr)
    exit()
"""
    result = sandbox.run(code, "1 2\n3\n4\n")
    assert (result.status, result.stdout, result.stderr) == ("ok", "10 1 2.5 é\n", "to stderr\n")


def test_threads_can_be_allowed(sandbox: Sandbox) -> None:
    code = """
import concurrent.futures, threading
with concurrent.futures.ThreadPoolExecutor(2) as pool:
    print(list(pool.map(lambda x: x * x, range(4))))
threading.Thread(target=lambda: print('after the end')).start()
"""
    result = sandbox.run(code, limits=Limits(threads=True))
    assert (result.status, result.stdout) == ("ok", "[0, 1, 4, 9]\nafter the end\n")
