"""How the time of our GRPO step grows: with the batch, the length of completions, the group. `python benchmarks/scaling.py`.

One thing is varied at a time around 64 completions of 64 tokens, 8 to a prompt; completions have a fixed length here, for a
stop token would hide it. All points are visited round after round, so that the machine's drift falls on all alike; the
figures are medians over the rounds and the exponent is the slope of the best line through log seconds over log size.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # as the command line does

from material import material
from protocol import BETA, GROUP, LEARNING_RATE, RESPONSE, TEMPERATURE, even_share
from results import RESULTS, add
from worker import Others

from backflip.algorithms import GRPO
from backflip.policies import load_policy
from backflip.policies.language import LanguagePolicy
from backflip.records import Prompt
from backflip.runs import Run
from backflip.seeds import Seeds
from backflip.settings import Optim, Sampling
from backflip.train.arithmetic import fast_matmul
from backflip.train.online import improve

CACHE = Path(__file__).resolve().parent / ".cache"
BASE = {"batch": 64, "response": RESPONSE, "group": GROUP}
VARIED = {
    "batch": (16, 32, 64, 128, 256),
    "response": (16, 32, 64, 128, 256, 512),
    "group": (2, 4, 8, 16, 32),
}
COUNTED = 2
"""Steps timed at every visit, after an uncounted one."""


class Clock:
    """A run that notes when a step is over."""

    def __init__(self, run: Run) -> None:
        self._run, self.times = run, list[float]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """The end of a step."""
        self.times.append(time.perf_counter())


def seconds(policy: LanguagePolicy, prompts: list[Prompt], point: dict[str, int]) -> list[float]:
    """Of each counted step at one point."""
    settings = dataclasses.replace(
        GRPO, steps=1 + COUNTED, batch_size=point["batch"], num_generations=point["group"], kl_coef=BETA["grpo"],
        save_every=10**6, sample_every=10**6,
        sampling=Sampling(
            max_new_tokens=point["response"], temperature=TEMPERATURE, slots=point["batch"], ignore_eos=True,
            precision="bfloat16",
        ),
        optim=Optim(learning_rate=LEARNING_RATE, precision="bfloat16"),
    )  # fmt: skip
    with (
        tempfile.TemporaryDirectory() as folder,
        Run.open(Path(folder) / "run", kind="bench", settings={}, quiet=True) as run,
        fast_matmul(run),
    ):
        clock: Any = Clock(run)
        improve(policy, prompts, even_share, settings, clock, seeds=Seeds(0))
    return [after - before for before, after in zip(clock.times, clock.times[1:], strict=False)]


def exponent(points: dict[int, float]) -> float:
    """The slope of log seconds over log size, by least squares."""
    xs, ys = zip(*((math.log(x), math.log(y)) for x, y in points.items()), strict=True)
    return statistics.linear_regression(xs, ys).slope


def main() -> None:
    """Measure and add to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="XS", help="Size of model.")
    parser.add_argument("--rounds", type=int, default=3, help="How often every point is visited.")
    parser.add_argument("--output", type=Path, default=RESULTS, help="File of the results.")
    args = parser.parse_args()
    home = material(CACHE, args.size)
    policy = load_policy(home / "model")
    prompts = [Prompt(text) for text in json.loads((home / "prompts.json").read_text())]
    found: dict[tuple[str, int], list[float]] = defaultdict(list)
    others = Others(os.getpid())
    others.begin()
    for _ in range(args.rounds):
        for name, values in VARIED.items():
            for value in values:
                found[name, value] += seconds(policy, prompts, BASE | {name: value})
    foreign = others.share()
    for name, values in VARIED.items():
        rows = {value: found[name, value] for value in values}
        slope = exponent({value: statistics.median(row) for value, row in rows.items()})
        points = {
            str(value): {"seconds": statistics.median(row), "low": min(row), "high": max(row)} for value, row in rows.items()
        }
        add(args.output, "scaling", {name: {"exponent": slope, "size": args.size, "foreign": foreign, "points": points}})
        print(f"{name}: exponent {slope:.2f}, " + ", ".join(f"{v}: {p['seconds']:.3f} s" for v, p in points.items()), flush=True)


if __name__ == "__main__":
    main()
