"""One side of a benchmark as the conductor sees it, and who else uses the cores. Stands on the standard library alone."""

from __future__ import annotations

import json
import os
import subprocess
import time
from contextlib import suppress
from pathlib import Path

CLOCK = os.sysconf("SC_CLK_TCK")
QUIET = 0.1
"""Share of the cores used by others up to which a measurement is to be trusted."""


class Retakes:
    """What others disturbed is measured again, until twice as many measurements were disturbed as are `wanted`; from then on
    disturbed ones count too, and the row says so."""

    def __init__(self, wanted: int) -> None:
        self.most, self.disturbed = 2 * wanted, 0

    def again(self, foreign: float) -> bool:
        """Whether a measurement during which others used this share of the cores is to be taken again."""
        again = foreign > QUIET and self.disturbed < self.most
        self.disturbed += again
        return again


class Worker:
    """One side: a process that takes one step when told to. It gets ready on its own; the first step waits for it."""

    def __init__(self, command: list[str], log: Path, *, pythonpath: str | None = None) -> None:
        self.log = log.open("w")
        environment = os.environ if pythonpath is None else os.environ | {"PYTHONPATH": pythonpath}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment
        )
        self.others = Others(self.process.pid)

    def ready(self) -> None:
        """Wait until everything before the first step is done."""
        self._read()

    def step(self) -> dict[str, float]:
        """One step; its seconds, the process's peak memory, and the share of the cores that others used meanwhile."""
        assert self.process.stdin is not None
        self.others.begin()
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        row = self._read()
        return row | {"foreign": self.others.share()}

    def _read(self) -> dict[str, float]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):  # what libraries print while they are imported is none of ours
                row: dict[str, float] = json.loads(line)
                return row
        raise SystemExit(f"a worker ended early; its last words are in {self.log.name}")

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()


class Others:
    """The share of the cores that everybody but one process uses from `begin` on."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def begin(self) -> None:
        """Start to count."""
        self.start, self.busy, self.own = time.perf_counter(), _busy(), self._cpu()

    def share(self) -> float:
        """0 when the process had the machine to itself, 1 when others used all of it."""
        cores = (os.cpu_count() or 1) * (time.perf_counter() - self.start)
        return max(0.0, (_busy() - self.busy - (self._cpu() - self.own)) / cores)

    def _cpu(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / CLOCK


def _busy() -> float:
    """Seconds that all cores together have worked since the machine started."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + irq + softirq + steal) / CLOCK
