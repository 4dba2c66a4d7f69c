"""`python benchmarks/sandbox.py`: milliseconds per execution of a small program, and executions a second, in each sandbox.

Times are those of whoever asks: from the call of `Sandbox.run` to its result. "Fresh" has a new interpreter (and, with
bubblewrap, new namespaces) for each execution; the others fork it from a server. A bare `python -I -S`, confined by nothing, is
the measure. The project's bars are at most 15 ms and at least 100 executions a second on 2 cores through the strongest driver.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backflip.errors import SandboxError
from backflip.sandbox import Limits, Sandbox
from backflip.sandbox.drivers import interpreter

PROGRAM, STDIN, STDOUT = "print(sum(int(x) for x in input().split()))", "1 2 3\n", "6\n"
PATIENT = Limits(cpu_s=10, wall_s=60)
MOST_MS, LEAST_PER_SECOND = 15.0, 100.0


@dataclass(frozen=True, slots=True)
class Measured:
    """One way to run a program: milliseconds of `n` executions one after the other, and how many a second side by side."""

    way: str
    n: int
    p50_ms: float
    p95_ms: float
    per_second: float

    def __str__(self) -> str:
        return f"{self.way:42} p50 {self.p50_ms:6.1f} ms   p95 {self.p95_ms:6.1f} ms   {self.per_second:6.0f}/s"


def measure(way: str, run: Callable[[], str], *, n: int, workers: int) -> Measured:
    """Time `n` executions one after the other, then `n` by `workers` threads at once; each must have the right output."""

    def timed() -> float:
        began = time.perf_counter()
        if run() != STDOUT:
            raise SystemExit(f"{way}: the program was not run as it should be")
        return 1000 * (time.perf_counter() - began)

    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(lambda _: timed(), range(2 * workers)):  # every server is there before the clock starts
            pass
        alone = [timed() for _ in range(n)]
        began = time.perf_counter()
        for _ in pool.map(lambda _: timed(), range(n)):
            pass
        per_second = n / (time.perf_counter() - began)
    cuts = statistics.quantiles(alone, n=20, method="inclusive")
    return Measured(way, n, cuts[9], cuts[18], per_second)


def bare() -> str:
    """The program in an interpreter that nothing confines."""
    command = [interpreter(), "-I", "-S", "-c", PROGRAM]
    return subprocess.run(command, input=STDIN, capture_output=True, text=True, check=True).stdout


def ways(*, n: int, workers: int) -> list[Measured]:
    """Everything there is on this machine, measured; what cannot be is named on stderr."""
    found = [measure("bare python -I -S, not confined", bare, n=n, workers=workers)]
    options: dict[str, dict[str, Any]] = {
        "": {},
        ", fresh": {"per_server": 1, "preload": ()},
        ", NumPy imported": {"packages": True, "preload": ["numpy"]},
    }
    for driver in ("bubblewrap", "landlock"):
        for told, more in options.items():
            try:
                with Sandbox(driver=driver, workers=workers, **more) as sandbox:
                    run = lambda box=sandbox: box.run(PROGRAM, STDIN, PATIENT).stdout  # noqa: E731
                    found.append(measure(f"{driver}{told or ', forked'}", run, n=n, workers=workers))
            except SandboxError as error:
                print(f"{driver}{told}: {error}", file=sys.stderr)
    return found


def main() -> int:
    """Measure, print, write; the exit status is 1 when the strongest driver misses a bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=300, help="Executions of each way, once one by one and once side by side.")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="How many run side by side [cores].")
    parser.add_argument("--out", type=Path, metavar="FILE", help="Where to write the figures as JSON.")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    found = ways(n=args.n, workers=args.workers)
    print(*found, sep="\n")
    forked = next((one for one in found if one.way.endswith("forked")), None)
    good = forked is not None and forked.p50_ms <= MOST_MS and forked.per_second >= LEAST_PER_SECOND
    print(f"{'met' if good else 'MISSED'}: {MOST_MS:g} ms and {LEAST_PER_SECOND:g}/s; load before the start {load:.1f}")
    if args.out:
        machine = {"kernel": platform.release(), "machine": platform.machine(), "python": platform.python_version(), "load": load}
        rows = [asdict(one) for one in found]
        args.out.write_text(json.dumps({"machine": machine, "workers": args.workers, "ways": rows}, indent=1) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
