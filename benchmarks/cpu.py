"""Speed and memory on this CPU beside the peer's: both sides take turns, step by step, in one session.

    make bench                                     # everything; installs the peer in an environment of its own
    .venv/bin/python benchmarks/cpu.py --parts ratios --jobs grpo,sft --sizes XS,S --settings fp32

Writes benchmarks/results/cpu.json (`--output` names another file, for another machine) and, from all files of results, the last
sections of docs/performance.md. In the file:

    ratios   job/size/setting → median, low, high: peer's seconds ÷ ours over pairs of neighbouring steps; peer_s, ours_s:
             median seconds of a step; peer_mb, ours_mb: peak memory of the process; foreign: the share of the cores that
             neither side used while it worked; steps: pairs counted; disturbed: pairs taken again because of others
    floor    job/size/precision → the fraction of the measured roofline that our side reached (benchmarks/roofline.py)
    memory   update → its peak with log-probabilities in chunks and with all logits at once (benchmarks/memory.py)
    scaling  what is varied → seconds of a step, and the fitted exponent (benchmarks/scaling.py)
    machine, versions
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from results import RESULTS, add
from worker import Retakes, Worker

HERE = Path(__file__).resolve().parent
CACHE = HERE / ".cache"
PEER = CACHE / "peer"
LAST_WITH_PPO = "1.12.0"
PACKAGES = ("trl==1.16.0", "transformers==5.23.0")
PARTS = ("ratios", "floors", "memory", "scaling", "page")

# What is measured when nothing else is asked for: jobs and their settings, fewer where a step takes many seconds.
PLAN: dict[str, dict[str, tuple[str, ...]]] = {
    "XS": {
        "generate-8": ("fp32", "bf16"), "generate-64": ("fp32", "bf16"), "generate-256": ("fp32", "bf16"),
        "grpo": ("default", "fp32", "bf16", "checkpointed"), "rloo": ("default", "fp32"), "ppo": ("default", "fp32"),
        "dpo": ("default", "fp32"), "reward": ("default", "fp32"), "sft": ("default", "fp32", "checkpointed"),
    },
    "S": {
        "generate-8": ("fp32",), "generate-64": ("fp32", "bf16"), "generate-256": ("fp32",),
        "grpo": ("default", "fp32", "bf16", "checkpointed"), "rloo": ("default",), "ppo": ("default",),
        "dpo": ("default", "fp32"), "reward": ("default", "fp32"), "sft": ("default", "fp32", "checkpointed"),
    },
    "M": {
        "generate-64": ("fp32", "bf16"), "grpo": ("default", "bf16"), "rloo": ("default",), "dpo": ("default",),
        "reward": ("default",), "sft": ("default",),
    },
}  # fmt: skip
WARM_UP = {"XS": 2, "S": 1, "M": 1}


@contextmanager
def sides(job: str, setting: str, home: Path) -> Iterator[tuple[Worker, Worker]]:
    """Both workers, ready for their first step."""

    def worker(python: Path, script: str, pythonpath: str | None) -> Worker:
        command = [str(python), str(HERE / script), job, setting, str(home)]
        return Worker(command, home / f"{script}-{job}-{setting}.log", pythonpath=pythonpath)

    own = Path(sys.executable)
    alone = job.startswith("generate")  # transformers alone, which our own environment has
    # What stands on the caller's path is for our side; the peer gets its own environment and nothing else.
    peer = worker(own if alone else PEER / "bin" / "python", "peer.py", str(CACHE / "trl-with-ppo") if job == "ppo" else "")
    try:
        ours = worker(own, "ours.py", None)
        try:
            peer.ready()
            ours.ready()
            yield peer, ours
        finally:
            ours.close()
    finally:
        peer.close()


def measure(
    job: str, setting: str, home: Path, *, steps: int, warm_up: int, pair_of: Callable[..., Any] | None = None
) -> dict[str, float]:
    """Medians over `steps` pairs of steps after `warm_up` uncounted ones; who begins a pair changes from pair to pair.
    `pair_of` starts both sides.

    A pair that others disturbed is taken again (`Retakes`).
    """
    rows: list[tuple[dict[str, float], dict[str, float]]] = []
    retakes = Retakes(steps)
    with (pair_of or sides)(job, setting, home) as (peer, ours):
        i = 0
        while len(rows) < steps:
            if i % 2:
                mine = ours.step()
                theirs = peer.step()
            else:
                theirs = peer.step()
                mine = ours.step()
            i += 1
            if i <= warm_up:
                continue
            if not retakes.again(max(theirs["foreign"], mine["foreign"])):
                rows.append((theirs, mine))
    ratios = [theirs["seconds"] / mine["seconds"] for theirs, mine in rows]
    return {
        "median": statistics.median(ratios), "low": min(ratios), "high": max(ratios),
        "peer_s": statistics.median(r[0]["seconds"] for r in rows), "ours_s": statistics.median(r[1]["seconds"] for r in rows),
        "peer_mb": rows[-1][0]["peak_mb"], "ours_mb": rows[-1][1]["peak_mb"],
        "foreign": statistics.median(side["foreign"] for r in rows for side in r), "steps": float(len(rows)),
        "disturbed": float(retakes.disturbed),
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
    from backflip.maths import limits

    names = [x.split(":")[1].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")]
    found = limits.measure(size=2048, megabytes=256, seconds=0.5)
    return {
        "cpu": names[0] if names else platform.processor(), "cores": os.cpu_count(),
        "fp32_gflops_stock": found.stock_gflops, "fp32_gflops_onednn": found.onednn_gflops, "bf16_gflops": found.bf16_gflops,
        "read_gb_s": found.read_gb_s,
    }  # fmt: skip


def versions() -> dict[str, str]:
    """The versions both sides ran."""
    from importlib.metadata import version

    names = ("torch", "transformers", "backflip")
    own = {"python": platform.python_version()} | {name: version(name) for name in names}
    return own | {"trl": PACKAGES[0].split("==")[1], "trl with ppo": LAST_WITH_PPO}


def ratios(args: argparse.Namespace) -> None:
    """Every job of the plan beside the peer's."""
    from material import material

    jobs, settings = (set(filter(None, text.split(","))) for text in (args.jobs, args.settings))
    install_peer()
    for size in args.sizes.split(","):
        home = material(CACHE, size)
        for job, own in PLAN[size].items():
            if jobs and job not in jobs:
                continue
            for setting in own:
                if settings and setting not in settings:
                    continue
                warm_up = WARM_UP[size] if args.warm_up is None else args.warm_up
                compare(f"{job}/{size}/{setting}", home, args.output, steps=args.steps, warm_up=warm_up)


def compare(key: str, home: Path, output: Path, **options: Any) -> None:
    """Measure job/size/setting and add it to the results. Where a side ends early, out of memory say, the row is left out, for
    the others can still be measured."""
    job, _, setting = key.split("/")
    try:
        row = measure(job, setting, home, **options)
    except SystemExit as problem:
        print(f"{key}: left out, {problem}", flush=True)
    else:
        record(key, row, output)


def record(key: str, row: dict[str, float], output: Path) -> None:
    """Add a row to the results and say it."""
    add(output, "ratios", {key: row})
    print(
        f"{key}: {row['median']:.2f}× ({row['low']:.2f} to {row['high']:.2f}), {row['peer_s']:.3f} s → {row['ours_s']:.3f} s, "
        f"{row['peer_mb']:.0f} MB → {row['ours_mb']:.0f} MB, others {row['foreign']:.0%}",
        flush=True,
    )


def main() -> None:
    """Measure what is asked for and add it to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help="Parts, separated by commas.")
    parser.add_argument("--jobs", default="", help="Of the ratios, only these jobs.")
    parser.add_argument("--settings", default="", help="Of the ratios, only these settings.")
    parser.add_argument("--sizes", default="XS,S,M", help="Sizes of model, separated by commas.")
    parser.add_argument("--steps", type=int, default=5, help="Counted pairs of steps.")
    parser.add_argument("--warm-up", type=int, help="Uncounted ones before them [2 for XS, 1 for the others].")
    parser.add_argument("--output", type=Path, default=RESULTS, help="File of the results.")
    args = parser.parse_args()
    parts = args.parts.split(",")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # both sides would take a GPU where there is one
    if set(parts) - set(PARTS):
        parser.error(f"the parts are {', '.join(PARTS)}")
    output = ["--output", str(args.output)]
    if parts != ["page"]:
        add(args.output, "machine", machine())
        add(args.output, "versions", versions())
    if "ratios" in parts:
        ratios(args)
    # Each of the others in a process of its own, so that none inherits threads or memory.
    if "floors" in parts:
        subprocess.run([sys.executable, str(HERE / "roofline.py"), "--sizes", args.sizes, *output], check=True)
    if "memory" in parts:
        subprocess.run([sys.executable, str(HERE / "memory.py"), *output], check=True)
    if "scaling" in parts:
        subprocess.run([sys.executable, str(HERE / "scaling.py"), *output], check=True)
    if "page" in parts:
        subprocess.run([sys.executable, str(HERE / "page.py")], check=True)


if __name__ == "__main__":
    main()
