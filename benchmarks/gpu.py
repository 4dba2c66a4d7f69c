"""Speed and memory on one CUDA device beside the peer's: both sides take turns, step by step, in one session.

    make bench-gpu                                          # everything
    .venv/bin/python benchmarks/gpu.py --jobs generate-256,update-64 --sizes M --settings bf16

Writes benchmarks/results/gpu.json, of the same form as cpu.json (`make bench ARGS="--parts page"` puts it on the page); memory is
the most that PyTorch had allocated on the device. The job "grpo" is TRL's trainer beside our loop and runs where `make bench` has
installed TRL. Ends with 2 where there is no CUDA device.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch
from cpu import CACHE, HERE, PEER, compare, sides, versions
from results import add
from worker import Worker

JOBS = ("generate-64", "generate-256", "generate-1024", "update-64", "update-512", "grpo")
SETTINGS = {"generate": ("bf16", "fp32"), "update": ("bf16", "fp32"), "grpo": ("default",)}


@contextmanager
def pair(job: str, setting: str, home: Path) -> Iterator[tuple[Worker, Worker]]:
    """Both workers, ready for their first step."""
    if job == "grpo":
        with sides(job, setting, home) as both:
            yield both
        return

    def worker(side: str) -> Worker:
        command = [sys.executable, str(HERE / "gpu_side.py"), f"{side}:{job}", setting, str(home)]
        return Worker(command, home / f"gpu-{side}-{job}-{setting}.log")

    with closing(worker("peer")) as peer, closing(worker("ours")) as ours:
        peer.ready()
        ours.ready()
        yield peer, ours


def machine() -> dict[str, Any]:
    """What the figures were measured on, its limits measured now."""
    properties = torch.cuda.get_device_properties(0)
    rates = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        x, w = (torch.randn(8192, 8192, device="cuda", dtype=dtype) for _ in range(2))
        rates[f"{name}_tflops"] = 2 * 8192**3 / _seconds(lambda x=x, w=w: x @ w) / 1e12  # type: ignore[misc]
    buffer = torch.zeros(1 << 28, device="cuda")
    return {
        "gpu": properties.name, "memory_gb": properties.total_memory / 2**30, "cuda": torch.version.cuda, **rates,
        "read_gb_s": 4 * buffer.numel() / _seconds(buffer.sum) / 1e9,
    }  # fmt: skip


def _seconds(work: Any, times: int = 10) -> float:
    """Seconds of the quickest of several runs of `work` on the device."""
    found = []
    for _ in range(times):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        found.append(begin.elapsed_time(end) / 1000)
    return min(found)


def main() -> None:
    """Measure what is asked for and add it to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", default=",".join(JOBS), help="Jobs, separated by commas.")
    parser.add_argument("--sizes", default="S,M,0.5B", help="Sizes of model, separated by commas.")
    parser.add_argument("--settings", default="", help="Only these settings of each job.")
    parser.add_argument("--steps", type=int, default=7, help="Counted pairs of steps.")
    parser.add_argument("--warm-up", type=int, default=4, help="Uncounted ones before them, in which graphs are recorded.")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "gpu.json", help="File of the results.")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("benchmarks/gpu.py needs a CUDA device and PyTorch sees none; benchmarks/cpu.py measures without.", file=sys.stderr)
        raise SystemExit(2)
    from material import material

    add(args.output, "machine", machine())
    add(args.output, "versions", versions())
    for size in args.sizes.split(","):
        home = material(CACHE, size)
        for job in args.jobs.split(","):
            if job == "grpo" and not (PEER / "done").exists():
                print(f"{job}/{size}: left out, for TRL is not installed; `make bench` installs it", flush=True)
                continue
            for setting in SETTINGS[job.split("-")[0]]:
                if not args.settings or setting in args.settings.split(","):
                    options = {"steps": args.steps, "warm_up": args.warm_up, "pair_of": pair}
                    compare(f"{job}/{size}/{setting}", home, args.output, **options)


if __name__ == "__main__":
    main()
