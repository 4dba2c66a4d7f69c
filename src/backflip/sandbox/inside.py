"""Everything of ours that runs inside the sandbox: a fork server, and what its children do before a model's code runs in them.

Started as a script, with an environment that tells nothing and a socket as stdin, it needs nothing but the standard library and
knows no secret: what a program is to compute, and its inputs, are read by the child alone. The life of an execution:

    control socket ─ limits, descriptors ─▶ fork ─▶ child: limits, no capabilities, Landlock, filter, then the program
                   ◀─ exit, signal, rusage ─ wait4

The child says through a pipe that it is confined before it runs anything; without that word the execution has no result.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import io
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import threading
import time
import traceback
import types
from typing import Any, NoReturn

CONTROL = 0
PROGRAM, STDIN, STDOUT, STDERR = range(4)  # the descriptors that come with a request, in this order
DESCRIPTORS = 4
STOP, READY, CONFINED = b"stop", b"ready", b"confined"
MESSAGE = 65536

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 24, 38
LANDLOCK_RESTRICT_SELF = 446  # the same number on every architecture
LAST_CAPABILITY = 63

libc = ctypes.CDLL(None, use_errno=True)


# --- values across the border ---------------------------------------------------------------------------------------------


def canonical(value: object, depth: int = 0) -> Any:
    """A value as plain JSON that keeps its exact type: equal JSON if and only if the same value of the same types.

    Whole numbers are written in base 16, so that a huge one takes linear time; floats too, so that each is exact and -0.0 differs
    from 0.0; NaN is `nan`. Keys and members are in the order of their own JSON. What is none of the built-in types (a subclass
    of one, too) becomes its class's name, which equals no value. Raises ValueError for what is nested more than 100 deep.

    >>> canonical([True, 1, 1.0])
    ['list', [True, ['int', '0x1'], ['float', '0x1.0000000000000p+0']]]
    """
    if depth > 100:
        raise ValueError("a value is nested more than 100 deep")
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        return ["int", hex(value)]  # type: ignore[arg-type]
    if kind is float:
        return ["float", value.hex()]  # type: ignore[attr-defined]
    if kind is bytes:
        return ["bytes", value.hex()]  # type: ignore[attr-defined]
    if kind is list or kind is tuple:
        return [kind.__name__, [canonical(item, depth + 1) for item in value]]  # type: ignore[attr-defined]
    if kind is set or kind is frozenset:
        return [kind.__name__, sorted((canonical(item, depth + 1) for item in value), key=text)]  # type: ignore[attr-defined]
    if kind is dict:
        pairs = [[canonical(k, depth + 1), canonical(v, depth + 1)] for k, v in value.items()]  # type: ignore[attr-defined]
        return ["dict", sorted(pairs, key=text)]
    return ["other", kind.__qualname__]


def restored(plain: Any) -> Any:
    """The value that `canonical` wrote. Raises ValueError for anything else."""
    if plain is None or isinstance(plain, bool | str):
        return plain
    name, content = plain
    if name == "int":
        return int(content, 16)
    if name == "float":
        return float.fromhex(content)
    if name == "bytes":
        return bytes.fromhex(content)
    if name == "dict":
        return {restored(key): restored(value) for key, value in content}
    kinds = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
    if name not in kinds:
        raise ValueError(f"no value of type {name!r} can be made from JSON")
    return kinds[name](restored(item) for item in content)


def text(plain: Any) -> str:
    """Canonical JSON as one line."""
    return json.dumps(plain, separators=(",", ":"))


# --- confinement ----------------------------------------------------------------------------------------------------------


def drop_capabilities() -> None:
    """Give up what root may do beyond other users, for good."""
    for capability in range(LAST_CAPABILITY + 1):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)  # refused to those who have none, and beyond the last one there is
    header, nothing = struct.pack("=Ii", 0x20080522, 0), bytes(24)
    _checked(libc.capset(header, nothing), "capset")


def confine(limits: dict[str, Any], rules: int | None, filters: dict[str, bytes]) -> None:
    """Limit and confine this process for good. Raises OSError where the kernel refuses any part."""
    memory, size = limits["memory_mb"] << 20, 64 << 20
    cpu = 2 + int(limits["cpu_s"])  # the server keeps to the limit; this count is coarse and only there if the server is not
    bounds = {"CPU": cpu, "AS": memory, "FSIZE": 0, "CORE": 0, "NOFILE": 64, "MEMLOCK": 0, "MSGQUEUE": 0}
    for name, bound in bounds.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}", 12), (bound, bound))  # 12: RLIMIT_MSGQUEUE, which has no name
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    size = size if hard == resource.RLIM_INFINITY else min(size, hard)
    resource.setrlimit(resource.RLIMIT_STACK, (size, size))
    _checked(libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "PR_SET_DUMPABLE")
    _checked(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")
    if rules is not None:
        _checked(libc.syscall(LANDLOCK_RESTRICT_SELF, rules, 0), "landlock_restrict_self")
        os.close(rules)
    if filters:
        code = ctypes.create_string_buffer(filters["threads" if limits["threads"] else "alone"])
        program = struct.pack("@HP", (len(code) - 1) // 8, ctypes.addressof(code))
        _checked(libc.prctl(PR_SET_SECCOMP, 2, program, 0, 0), "PR_SET_SECCOMP")


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


# --- a program ------------------------------------------------------------------------------------------------------------


def run(request: dict[str, Any]) -> int:
    """Run a program to its end, as `python program.py` would, and return its exit status.

    `request` has its `code`. With an `entry`, the name of a function in it (or `Class.method`), stdin is the canonical JSON of
    a list of arguments; the function is called with them and its value is printed as canonical JSON after the `nonce`.
    """
    module = types.ModuleType("__main__")
    sys.argv[:] = ["program.py"]
    sys.modules["__main__"] = module
    try:
        arguments = restored(json.load(sys.stdin)) if request["entry"] else []
        exec(compile(request["code"], "<program>", "exec"), module.__dict__)
        if request["entry"]:
            value = text(canonical(_function(module, request["entry"])(*arguments)))
            _flush()
            _write(1, f"\n{request['nonce']}{value}\n".encode())
        status = 0
    except SystemExit as leave:
        status = _status(leave)
    except BaseException as error:
        inner = error.__traceback__.tb_next if error.__traceback__ else None
        traceback.print_exception(type(error), error, inner)
        status = 1
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    return status


def _function(module: types.ModuleType, entry: str) -> Any:
    found: Any = module
    for name in entry.split("."):
        found = getattr(found() if isinstance(found, type) else found, name)
    return found


def _status(leave: SystemExit) -> int:
    if leave.code is None or isinstance(leave.code, int):
        return (leave.code or 0) & 255
    print(leave.code, file=sys.stderr)
    return 1


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _stream(descriptor: int, mode: str) -> Any:
    raw = io.FileIO(descriptor, mode, closefd=False)
    buffer: Any = io.BufferedReader(raw) if mode == "r" else io.BufferedWriter(raw)
    return io.TextIOWrapper(buffer, encoding="utf-8", errors="replace", line_buffering=descriptor == 2)


def _flush() -> None:
    for stream in {sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__}:
        if stream is not None:
            stream.flush()


# --- the server -----------------------------------------------------------------------------------------------------------


def child(request: dict[str, Any], given: list[int], proof: int, rules: int | None, filters: dict[str, bytes]) -> NoReturn:
    """Become the program: take its descriptors, confine this process, say so through `proof`, run, and exit."""
    try:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        with open(given[PROGRAM], encoding="utf-8", errors="surrogatepass") as file:
            request |= json.load(file)
        high = 64  # above every descriptor that is still wanted
        keep = [os.dup2(proof, high, inheritable=False)]
        if rules is not None:
            keep.append(os.dup2(rules, high + 1, inheritable=False))
        for standard, descriptor in enumerate((given[STDIN], given[STDOUT], given[STDERR])):
            os.dup2(descriptor, standard)
        os.closerange(3, high)
        os.closerange(high + 2, high + 2 + 1024)
        for standard, name in enumerate(("stdin", "stdout", "stderr")):
            stream = _stream(standard, "w" if standard else "r")
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
        confine(request, keep[1] if rules is not None else None, filters)
    except BaseException as error:
        os.write(proof, f"{type(error).__name__}: {error}".encode()[:1000])
        os._exit(1)
    os.write(keep[0], CONFINED)
    os.close(keep[0])
    status = 1
    try:
        status = run(request)
        _flush()
    except BaseException:
        status = status or 1
    finally:
        os._exit(status)


def execute(control: socket.socket, request: dict[str, Any], given: list[int], **confinement: Any) -> dict[str, Any]:
    """Fork a child for a request, wait for its end or make one, and say what the kernel counted."""
    said, proof = os.pipe()
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        child(request, given, proof, **confinement)
    os.close(proof)
    for descriptor in given:
        os.close(descriptor)
    word = os.read(said, 1000)  # nothing of the program has run until this returns
    os.close(said)
    timeout = _wait(control, pid, began + request["wall_s"], request["cpu_s"])
    _, status, used = os.wait4(pid, 0)
    return {
        "failure": "" if word == CONFINED else word.decode(errors="replace") or "it died before it was confined",
        "timeout": timeout,
        "exit": os.waitstatus_to_exitcode(status),
        "cpu_s": used.ru_utime + used.ru_stime,
        "wall_s": time.monotonic() - began,
        "max_rss": used.ru_maxrss * 1024,
    }


def _wait(control: socket.socket, pid: int, until: float, cpu_s: float) -> bool:
    """Whether the child ran out of time; it is killed then, and when the other side says so or is gone."""
    ended = os.pidfd_open(pid)
    clock = (~pid << 3) | 2  # the processor time of that process, as clock_getcpuclockid(3) makes it
    try:
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        poll.register(control, select.POLLIN)
        ready: set[int] = set()
        while not ready and (left := min(until - time.monotonic(), cpu_s - time.clock_gettime(clock))) > 0:
            ready = {descriptor for descriptor, _ in poll.poll(1000 * left + 1)}
        if ended not in ready:
            signal.pidfd_send_signal(ended, signal.SIGKILL)
        return not ready
    finally:
        os.close(ended)


def main() -> None:
    """Serve executions until the other side closes the socket."""
    control = socket.socket(fileno=CONTROL)
    first, descriptors, *_ = socket.recv_fds(control, MESSAGE, 1)
    settings = json.loads(first)
    drop_capabilities()
    sys.path[:] = [*(path for path in sys.path if path != os.path.dirname(os.path.abspath(__file__))), *settings["paths"]]
    for name in settings["preload"]:
        importlib.import_module(name)
    import _sitebuiltins
    import builtins

    builtins.exit = _sitebuiltins.Quitter("exit", "Ctrl-D")  # what `site` would have done
    builtins.quit = _sitebuiltins.Quitter("quit", "Ctrl-D")
    for name in set(os.environ) - set(settings["environment"]):  # what bubblewrap and the interpreter have added
        del os.environ[name]
    confinement = {
        "rules": descriptors[0] if descriptors else None,
        "filters": {name: bytes.fromhex(code) for name, code in settings["filters"].items()},
    }
    compile("pass", "<warm>", "exec")  # the compiler sets itself up when first used; 3 ms that no child need spend
    gc.collect()
    gc.freeze()  # what is here now need not be looked at, and so not copied, in each child
    control.send(READY)
    while True:
        message, given, *_ = socket.recv_fds(control, MESSAGE, DESCRIPTORS)
        if not message:
            os._exit(0)
        if message != STOP:  # a stop that crossed the end of what it was to stop
            control.send(json.dumps(execute(control, json.loads(message), given, **confinement)).encode())


if __name__ == "__main__":
    main()
