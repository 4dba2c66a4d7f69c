"""Speed and memory on this CPU beside the peer's: both sides take turns, step by step, in one session.

    make bench                                     # everything; installs the peer in an environment of its own
    .venv/bin/python benchmarks/cpu.py --jobs generate-64 --sizes XS,S --settings fp32

Writes benchmarks/results/cpu.json: `ratios` maps job/size/setting to the median of peer ÷ ours with the lowest and highest
pair of steps, both sides' median seconds and peak memory, and `foreign`, the share of the cores that neither side used while
it worked; `floor` maps generate/size to the fraction of the measured roofline that our side reached.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CACHE = HERE / ".cache"
PEER = CACHE / "peer"
LAST_WITH_PPO = "1.12.0"
PACKAGES = ("trl==1.16.0", "transformers==5.23.0")

GENERATION = ("generate-8", "generate-64", "generate-256")
TRAINING = ("sft", "reward", "ppo")
SETTINGS = {"generate": ("fp32", "bf16"), "sft": ("default", "fp32"), "reward": ("default", "fp32"), "ppo": ("default", "fp32")}
CLOCK = os.sysconf("SC_CLK_TCK")


class Worker:
    """One side: a process that takes one step when told to."""

    def __init__(self, python: Path, script: str, job: str, setting: str, home: Path, extra: Path | None = None) -> None:
        path = [str(extra)] if extra else []
        self.log = (home / f"{script}-{job}-{setting}.log").open("w")
        self.process = subprocess.Popen(
            [str(python), str(HERE / script), job, setting, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self.log, text=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
        )  # fmt: skip
        self._read()

    def step(self) -> dict[str, float]:
        """One step; its seconds, the process's peak memory, and the share of the cores that others used meanwhile."""
        assert self.process.stdin is not None
        busy, own, start = _busy(), self._cpu(), time.perf_counter()
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        row = self._read()
        cores = (os.cpu_count() or 1) * (time.perf_counter() - start)
        return row | {"foreign": max(0.0, (_busy() - busy - (self._cpu() - own)) / cores)}

    def _read(self) -> dict[str, float]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):  # what libraries print while they are imported is none of ours
                row: dict[str, float] = json.loads(line)
                return row
        raise SystemExit(f"a worker ended early; its last words are in {self.log.name}")

    def _cpu(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / CLOCK

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


def _busy() -> float:
    """Seconds that all cores together have worked since the machine started."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + irq + softirq + steal) / CLOCK


@contextmanager
def sides(job: str, setting: str, home: Path) -> Iterator[tuple[Worker, Worker]]:
    """Both workers, ready for their first step."""
    python = Path(sys.executable)
    alone = job.startswith("generate")  # transformers alone, which our own environment has
    old = CACHE / "trl-with-ppo" if job == "ppo" else None
    peer = Worker(python if alone else PEER / "bin" / "python", "peer.py", job, setting, home, old)
    try:
        ours = Worker(python, "ours.py", job, setting, home)
        try:
            yield peer, ours
        finally:
            ours.close()
    finally:
        peer.close()


def measure(
    job: str, setting: str, home: Path, *, steps: int, warm_up: int, pair_of: Callable[..., Any] | None = None
) -> dict[str, float]:
    """Medians over `steps` pairs of steps after `warm_up` uncounted ones; `pair_of` starts both sides."""
    rows: list[tuple[dict[str, float], dict[str, float]]] = []
    with (pair_of or sides)(job, setting, home) as (peer, ours):
        for i in range(warm_up + steps):
            pair = (peer.step(), ours.step())
            if i >= warm_up:
                rows.append(pair)
    ratios = [theirs["seconds"] / mine["seconds"] for theirs, mine in rows]
    return {
        "median": statistics.median(ratios), "low": min(ratios), "high": max(ratios),
        "peer_s": statistics.median(r[0]["seconds"] for r in rows), "ours_s": statistics.median(r[1]["seconds"] for r in rows),
        "peer_mb": rows[-1][0]["peak_mb"], "ours_mb": rows[-1][1]["peak_mb"],
        "foreign": statistics.median(side["foreign"] for r in rows for side in r), "steps": float(len(rows)),
        **({"ours_tokens": statistics.median(r[1]["tokens"] for r in rows),
            "peer_tokens": statistics.median(r[0]["tokens"] for r in rows)} if "tokens" in rows[0][1] else {}),
    }  # fmt: skip


def install_peer() -> None:
    """The peer's own environment, and the last release with PPO beside it."""
    if not (PEER / "done").exists():
        torch = next(x for x in (HERE.parent / "constraints.txt").read_text().split() if x.startswith("torch=="))
        subprocess.run([sys.executable, "-m", "venv", str(PEER)], check=True)
        pip = [str(PEER / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, torch], check=True)
        subprocess.run([*pip, *PACKAGES, "pandas"], check=True)
        target = ["--no-deps", "--target", str(CACHE / "trl-with-ppo"), f"trl=={LAST_WITH_PPO}"]
        subprocess.run([*pip, *target], check=True)
        (PEER / "done").touch()


def machine() -> dict[str, Any]:
    """What the figures were measured on, its limits measured now."""
    import torch

    from backflip.maths import matmul

    torch.set_num_threads(os.cpu_count() or 1)
    names = [x.split(":")[1].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")]
    rates = matmul.measure()
    x, w = torch.randn(2048, 2048).bfloat16(), torch.randn(2048, 2048).bfloat16()
    buffer = torch.zeros(64_000_000)
    return {
        "cpu": names[0] if names else platform.processor(), "cores": os.cpu_count(),
        "fp32_gflops_stock": rates.stock_gflops, "fp32_gflops_onednn": rates.onednn_gflops,
        "bf16_gflops": 2 * 2048**3 / matmul.shortest(lambda: x @ w, times=10) / 1e9,
        "read_gb_s": 0.256 / matmul.shortest(buffer.sum, times=10),
    }  # fmt: skip


def versions() -> dict[str, str]:
    """The versions both sides ran."""
    from importlib.metadata import version

    names = ("torch", "transformers", "backflip")
    return {name: version(name) for name in names} | {"trl": PACKAGES[0].split("==")[1], "trl with ppo": LAST_WITH_PPO}


def main() -> None:
    """Measure what is asked for and add it to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", default=",".join((*GENERATION, *TRAINING)), help="Jobs, separated by commas.")
    parser.add_argument("--sizes", default="XS,S,M", help="Sizes of model, separated by commas.")
    parser.add_argument("--settings", default="", help="Only these settings of each job.")
    parser.add_argument("--steps", type=int, default=7, help="Counted pairs of steps.")
    parser.add_argument("--warm-up", type=int, default=2, help="Uncounted ones before them.")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "cpu.json", help="File of the results.")
    args = parser.parse_args()
    jobs = args.jobs.split(",")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # both sides would take a GPU where there is one
    if any(job in TRAINING for job in jobs):
        install_peer()
    from material import material

    args.output.parent.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = json.loads(args.output.read_text()) if args.output.exists() else {"ratios": {}}
    results |= {"machine": machine(), "versions": versions()}
    for size in args.sizes.split(","):
        home = material(CACHE, size)
        for job in jobs:
            for setting in SETTINGS[job.split("-")[0]]:
                if args.settings and setting not in args.settings.split(","):
                    continue
                row = measure(job, setting, home, steps=args.steps, warm_up=args.warm_up)
                record(results, f"{job}/{size}/{setting}", row, args.output)


def record(results: dict[str, Any], key: str, row: dict[str, float], output: Path) -> None:
    """Add a row to the results and say it."""
    results["ratios"][key] = row
    output.write_text(json.dumps(results, indent=1) + "\n")
    print(
        f"{key}: {row['median']:.2f}× ({row['low']:.2f} to {row['high']:.2f}), {row['peer_s']:.3f} s → {row['ours_s']:.3f} s, "
        f"{row['peer_mb']:.0f} MB → {row['ours_mb']:.0f} MB, others {row['foreign']:.0%}",
        flush=True,
    )


if __name__ == "__main__":
    main()
