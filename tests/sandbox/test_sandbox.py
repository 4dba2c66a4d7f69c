"""The sandbox as a service: which driver, when it refuses, what it says, what it leaves behind, and what if it breaks."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from backflip.errors import ConfigError, SandboxError
from backflip.sandbox import Case, Limits, Result, Sandbox, canaries, drivers, grade, landlock, seccomp, server
from backflip.sandbox.server import Server

SOURCE = Path(__file__).resolve().parents[2] / "src"
PATIENT = Limits(cpu_s=5, wall_s=30)


def servers(owner: int | None = None) -> set[psutil.Process]:
    """The processes below this one, or another owner, that belong to a sandbox."""
    found = set()
    for process in psutil.Process(owner).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if any(word.endswith("sandbox/inside.py") for word in process.cmdline()):
                found.add(process)
    return found


def gone(processes: set[psutil.Process]) -> bool:
    """Whether processes end within some seconds."""
    return not psutil.wait_procs(processes, timeout=10)[1]


@pytest.fixture
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with neither bubblewrap nor Landlock."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(landlock, "abi", lambda: 0)


def test_the_strongest_driver_is_taken_and_told(sandbox: Sandbox) -> None:
    told = sandbox.describe()
    assert told["driver"] in drivers.STRONGEST_FIRST
    assert told["canaries"] == {"honest": "works"} | dict.fromkeys(canaries.ATTACKS, "refused")
    assert set(canaries.ATTACKS) == {"read", "connect", "fork", "write", "signal", "ptrace"}
    assert len(told["seccomp"]) == 16
    assert told["kernel"] == os.uname().release
    assert told["landlock_abi"] == landlock.abi()


@pytest.mark.usefixtures("no_driver")
def test_without_a_driver_it_refuses_and_says_what_is_missing() -> None:
    with pytest.raises(SandboxError) as refusal:
        Sandbox()
    assert "bubblewrap is not installed (apt-get install bubblewrap)" in str(refusal.value)
    assert "Landlock is missing from this kernel" in str(refusal.value)
    with Sandbox(unsafe=True) as sandbox:
        assert sandbox.describe()["driver"] == "unsafe"
        assert sandbox.describe()["seccomp"] == "none"
        assert not canaries.all_refused(sandbox.describe()["canaries"])


def test_without_bubblewrap_it_takes_landlock(monkeypatch: pytest.MonkeyPatch) -> None:
    if landlock.abi() < 1:
        pytest.skip("this kernel has no Landlock")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with Sandbox() as sandbox:
        assert sandbox.describe()["driver"] == "landlock"


def test_a_bubblewrap_that_may_not_make_namespaces_is_left_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(broken))
    with pytest.raises(SandboxError, match="bubblewrap did not start: bwrap: No permissions to create new namespace"):
        Sandbox(driver="bubblewrap")


def test_on_another_system_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(SandboxError, match="this is darwin and every driver needs Linux"):
        Sandbox()


def test_a_driver_whose_canaries_get_out_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_door(extra: tuple[str, ...]) -> drivers.Driver:
        return drivers.Driver("open door", drivers.python(), 0)

    everything = b"".join((b"\x06\x00\x00\x00" + (0x7FFF0000).to_bytes(4, "little"),))  # one instruction: allow
    monkeypatch.setattr(seccomp, "program", lambda machine, threads: everything)
    monkeypatch.setattr(drivers, "STRONGEST_FIRST", {"open door": open_door})
    before = servers()
    with pytest.raises(SandboxError, match=r"open door failed its canaries \(.*read: LEAKED"):
        Sandbox()
    assert gone(servers() - before)


@pytest.mark.parametrize("name", canaries.ATTACKS)
def test_one_canary_that_gets_out_is_enough(name: str) -> None:
    verdicts = {"honest": "works"} | dict.fromkeys(canaries.ATTACKS, "refused")
    assert canaries.all_refused(verdicts)
    assert not canaries.all_refused(verdicts | {name: "LEAKED or unclear: ok 'LEAKED'"})
    assert not canaries.all_refused(verdicts | {"honest": "error ''"})


def test_a_canary_that_could_not_be_tried_counts_as_out() -> None:
    def broken(code: str, limits: Limits) -> Result:
        return Result("ok" if code == canaries.HONEST else "error", "42\n", "", 0.0, 0.0, 0)

    assert not canaries.all_refused(canaries.sing(broken))


class Misfortune:
    """Sends a signal to the server in the middle of each of the next `times` executions."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
        self.times, self.number, self.real = 0, number, Server.run
        monkeypatch.setattr(Server, "run", lambda server, *arguments, **more: self.run(server, *arguments, **more))

    def run(self, server: Server, code: str, *arguments: Any, **more: Any) -> Result:
        """In place of `Server.run`."""
        if not self.times:
            return self.real(server, code, *arguments, **more)
        self.times -= 1
        threading.Timer(0.3, os.killpg, (server._process.pid, self.number)).start()
        return self.real(server, "import time\ntime.sleep(30)\n" + code, *arguments, **more)


def test_a_server_that_dies_once_is_replaced_and_one_that_dies_twice_gives_no_result(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    death = Misfortune(monkeypatch, signal.SIGKILL)
    code, cases = "def f(): return 1\nprint('done')", [Case([], 1)]
    death.times = 1
    assert sandbox.run(code, limits=PATIENT).stdout == "done\n"
    death.times = 2
    with pytest.raises(SandboxError, match=r"the sandbox's server (died while it ran a program|is gone)"):
        sandbox.run(code, limits=PATIENT)
    death.times = 2
    with pytest.raises(SandboxError, match="the sandbox's server"):
        grade(sandbox, code, cases, entry="f", limits=PATIENT)
    assert grade(sandbox, code, cases, entry="f", limits=PATIENT).score == 1.0


def test_a_server_that_hangs_is_given_up(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "GRACE_S", 0.5)
    halt = Misfortune(monkeypatch, signal.SIGSTOP)
    before = servers()
    halt.times = 2
    with pytest.raises(SandboxError, match=r"the sandbox's server has not answered for 1.5 s; nothing is known"):
        sandbox.run("", limits=Limits(wall_s=1.0))
    assert gone(before)
    assert sandbox.run("print(1)").stdout == "1\n"


def test_a_server_that_is_gone_between_two_runs_is_replaced(sandbox: Sandbox) -> None:
    sandbox.run("")
    [idle] = sandbox._idle
    os.killpg(idle._process.pid, signal.SIGKILL)
    idle._process.wait()
    assert sandbox.run("print(1)").stdout == "1\n"
    assert idle not in sandbox._idle


def test_a_child_that_cannot_be_confined_runs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp, "program", lambda machine, threads: b"\xff" * 8)  # no instruction of any filter
    with pytest.raises(SandboxError, match="a program could not be confined, so it was not run"):
        Sandbox()


def test_a_preload_that_cannot_be_imported_is_named() -> None:
    with pytest.raises(SandboxError, match="did not start: ModuleNotFoundError: No module named 'nothing_of_that_name'"):
        Sandbox(preload=["nothing_of_that_name"])


def test_nothing_stays_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = servers()
    descriptors = len(os.listdir("/proc/self/fd"))
    with Sandbox(workers=2) as sandbox, ThreadPoolExecutor(2) as pool:
        loops = ["while True: pass", "print(1)", "import time; time.sleep(100)", "while True: print('x' * 1000)"]
        results = list(pool.map(lambda code: sandbox.run(code, limits=Limits(cpu_s=0.2, wall_s=0.5)), loops))
        assert {"timeout", "output"} <= {result.status for result in results}
        started = servers() - before
        assert started
    assert gone(started)
    assert os.listdir(tmp_path) == []
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_sandbox_that_nobody_closes_ends_with_its_last_user() -> None:
    before = servers()
    sandbox = Sandbox()
    started = servers() - before
    assert started
    del sandbox
    gc.collect()
    assert gone(started)


@pytest.mark.parametrize("driver", drivers.STRONGEST_FIRST)
def test_the_death_of_the_owner_ends_server_and_program(driver: str, sandboxes: Callable[[str], Sandbox]) -> None:
    sandboxes(driver)  # skips where it cannot be
    code = f"""
import os, sys, threading
from backflip.sandbox import Sandbox, Limits
sandbox = Sandbox(driver={driver!r})
threading.Thread(target=lambda: sys.stdin.readline() and os.kill(os.getpid(), 9)).start()
threading.Timer(0.3, print, ('started',), dict(flush=True)).start()
sandbox.run('while True: pass', limits=Limits(cpu_s=60, wall_s=60))
"""
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    owner = subprocess.Popen([sys.executable, "-c", code], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"started\n"
    started = servers(owner.pid)
    assert started
    owner.communicate(b"die\n", timeout=30)
    assert gone(started)


def test_a_server_outlives_the_thread_that_started_it(sandbox: Sandbox) -> None:
    with Sandbox() as fresh:
        fresh.close()  # so that the next server is the thread's
        thread = threading.Thread(target=fresh.run, args=("",))
        thread.start()
        thread.join()
        [idle] = fresh._idle
        time.sleep(0.1)
        assert fresh.run("print('alive')").stdout == "alive\n"
        assert fresh._idle == [idle]


def test_many_threads_share_few_servers() -> None:
    with Sandbox(workers=2) as sandbox:
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(lambda i: sandbox.run("print(int(input()) ** 2)", str(i), PATIENT).stdout, range(40)))
        assert results == [f"{i * i}\n" for i in range(40)]
        assert len(sandbox._idle) <= 2


def test_each_execution_can_have_an_interpreter_of_its_own() -> None:
    with Sandbox(per_server=1, preload=()) as sandbox:
        assert [sandbox.run("print(1)", limits=PATIENT).stdout for _ in range(2)] == ["1\n", "1\n"]
        assert sandbox._idle == []


def test_installed_packages_can_be_offered() -> None:
    code = "import sys\nprint('numpy' in sys.modules)\nimport numpy\nprint(int(numpy.ones((9, 9)).dot(numpy.ones(9)).sum()))"
    with Sandbox(packages=True, preload=["numpy"]) as sandbox:
        assert sandbox.run(code, limits=PATIENT).stdout == "True\n81\n"


def test_packages_that_start_threads_by_themselves_can_be_imported_late() -> None:
    with Sandbox(packages=True) as sandbox:
        result = sandbox.run(
            "import numpy\nprint(float(numpy.linalg.norm(numpy.ones((40, 40)) @ numpy.ones(40))) > 0)", limits=PATIENT
        )
    assert (result.stdout, result.stderr) == ("True\n", "")


def test_a_program_reads_its_stdin_and_its_words_come_back_whole(sandbox: Sandbox) -> None:
    long = "é漢🙂\n" * 200_000
    result = sandbox.run(
        "import sys\ntext = sys.stdin.read()\nprint(len(text), text[:3])\nprint(text[-4:], file=sys.stderr)", long, PATIENT
    )
    assert (result.stdout, result.stderr) == (f"{len(long)} é漢🙂\n", "é漢🙂\n\n")
    assert sandbox.run("input()").stderr.endswith("EOFError: EOF when reading a line\n")
    assert sandbox.run("import os\nos.write(1, b'\\xff')").stdout == "\ufffd"
    assert sandbox.run("print('\\ud800')").stdout == "?\n"


def test_the_end_of_a_program_is_told(sandbox: Sandbox) -> None:
    ends = {
        "": "ok",
        "import sys; sys.exit(0)": "ok",
        "import sys; sys.exit(3)": "error",
        "quit('why')": "error",
        "1 / 0": "error",
    }
    assert {code: sandbox.run(code).status for code in ends} == ends
    assert sandbox.run("quit('why')").stderr == "why\n"
    assert sandbox.run("x = (").stderr.endswith("SyntaxError: '(' was never closed\n")
    assert sandbox.run("import time\ntime.sleep(9)", limits=Limits(wall_s=0.2)).status == "timeout"
    busy = sandbox.run("while True: pass", limits=Limits(cpu_s=0.3, wall_s=30))
    assert busy.status == "timeout"
    assert 0.3 <= busy.cpu_s < 1.0


def test_output_is_cut_at_its_limit(sandbox: Sandbox) -> None:
    limits = Limits(output_bytes=1000)
    assert sandbox.run("print('x' * 999)", limits=limits).status == "ok"
    flood = sandbox.run("print('x' * 1000)", limits=limits)
    assert (flood.status, len(flood.stdout)) == ("output", 1000)


def test_the_same_program_does_the_same_twice(sandbox: Sandbox) -> None:
    code = "print({str(i) for i in range(50)}, hash('x'))"
    with Sandbox() as other:
        assert sandbox.run(code).stdout == other.run(code).stdout


@pytest.mark.parametrize("wrong", [{"cpu_s": 0}, {"wall_s": -1}, {"memory_mb": 0}, {"output_bytes": 0}])
def test_a_limit_that_is_none_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))} is .*; give a number above zero"):
        Limits(**wrong)  # type: ignore[arg-type]


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="no sandbox driver is called 'gvisor'; there are bubblewrap and landlock"):
        Sandbox(driver="gvisor")
    with pytest.raises(ConfigError, match="at least 1 of workers"):
        Sandbox(workers=0)


@pytest.fixture
def other_python() -> Iterator[str]:
    """A Python that every user of this machine can start."""
    for candidate in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        command = [candidate, "-c", "import sys, sysconfig, json; sys.exit(sys.version_info < (3, 11))"]
        try:
            if subprocess.run(command, user=65534, group=65534, extra_groups=[], check=False, cwd="/").returncode == 0:
                yield candidate
                return
        except OSError:
            continue
    pytest.skip("no Python 3.11 or newer on this machine can be started by another user")


@pytest.mark.parametrize("driver", drivers.STRONGEST_FIRST)
def test_it_works_as_another_user(driver: str, request: pytest.FixtureRequest, sandboxes: Callable[[str], Sandbox]) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become another user; whoever runs this is another user already")
    sandboxes(driver)
    python = request.getfixturevalue("other_python")
    code = f"""
import os, sys
sys.path.append({str(SOURCE)!r})
from backflip.sandbox import Sandbox, canaries
with Sandbox(driver={driver!r}) as sandbox:
    print(os.getuid(), canaries.all_refused(sandbox.describe()['canaries']), sandbox.run('print(6 * 7)').stdout)
"""
    done = subprocess.run(
        [python, "-B", "-c", code], user=65534, group=65534, extra_groups=[], cwd="/", capture_output=True, text=True, check=False
    )  # fmt: skip
    if "Permission denied" in done.stderr and "backflip" in done.stderr:
        pytest.skip("another user cannot read this checkout")
    assert done.stdout.split() == ["65534", "True", "42"], done.stderr
