"""How natural does text stay while its reward rises? A2C, TRPO, PPO and NLPO at equal samples (Ramamurthy et al. 2022, table 4).

Two tasks with rewards that can be gamed: numbers that should increase, and reviews that should be warm by a judge who counts
words. Reward stands beside perplexity under a language model that none of the policies was made from, and under each policy's KL
to where it started. Without a KL penalty the two fall apart; whether NLPO's mask holds text together then, at equal reward, is
the question. Everything is measured on prompts that are not trained on.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backflip.lab.clock import Clock
from backflip.lab.grue_report import report
from backflip.lab.grue_settings import Settings
from backflip.lab.grue_tasks import TASKS
from backflip.lab.outcome import Line, at_most
from backflip.lab.seeds import every_seed, told
from backflip.seeds import Seeds
from backflip.settings import Tiny

__all__ = ["QUICK", "TITLE", "Settings", "judge", "run"]

TITLE = "Reward beside perplexity: A2C, TRPO, PPO and NLPO at equal samples, with and without a KL penalty."

QUICK = dataclasses.replace(
    Settings(), seeds=1, documents=300, steps=2, batch_size=16, problems=8, checkpoints=1,
    tiny=Tiny(vocabulary=320, hidden_size=32, layers=1, heads=2, context=96),
)  # fmt: skip
"""Everything once, in seconds; it shows that the parts work, and nothing else."""


def run(settings: Settings, folder: Path, quiet: bool) -> bool:
    """Run every seed, or what is missing of it, and tell it; whether all bars were met."""
    seeds = every_seed(settings, folder, quiet, one)
    return told(settings, folder, seeds, judge(seeds), report)


def one(seed: int, settings: Settings, folder: Path, quiet: bool) -> dict[str, Any]:
    """The figures of one seed: for each task, and each algorithm, what was measured after so many steps."""
    from backflip.lab import grue_stages as stages

    seeds, clock = Seeds(seed), Clock(folder / "clock.json")
    found: dict[str, Any] = {"seed": seed, "tasks": {}}
    for task in TASKS:
        home = folder / task.name
        with clock.running("pretraining"):
            start = stages.base(task, settings, home / "base", seeds.child("base"), quiet)
            other = stages.base(task, settings, home / "judge", seeds.child("judge"), quiet)
        runs: dict[str, Any] = {}
        for name, online in settings.runs(task.max_new_tokens).items():
            with clock.running(name):
                models = stages.reinforce(task, home / name, start, online, seeds, quiet)
            with clock.running("measuring"):
                runs[name] = {
                    step: stages.measured(task, home / "measured" / f"{name}-{step}.json", model, start, other, settings, seeds)
                    for step, model in ({0: start} | models).items()
                }
        found["tasks"][task.name] = runs
    found["seconds"] = clock.seconds
    return found


def last(run: dict[str, Any]) -> dict[str, Any]:
    """What was measured after the last step of a run; steps are texts once they were read back from a file."""
    figures: dict[str, Any] = run[max(run, key=int)]
    return figures


def at_reward(run: dict[str, Any], level: float) -> float | None:
    """Log-perplexity where a run's reward first reaches `level`, between its checkpoints along a line; None where it never does.

    >>> at_reward({0: {"reward": 0.0, "perplexity": 1.0}, 9: {"reward": 1.0, "perplexity": math.e}}, 0.5)
    0.5
    """
    steps = sorted(run, key=int)
    for before, after in itertools.pairwise(steps):
        low, high = run[before]["reward"], run[after]["reward"]
        if low <= level <= high and high > low:
            share = (level - low) / (high - low)
            ends = [math.log(run[step]["perplexity"]) for step in (before, after)]
            return float(ends[0] + share * (ends[1] - ends[0]))
    return None


def equal_reward(seed: dict[str, Any], task: str) -> float | None:
    """By how many nats a token NLPO's text is more natural than PPO's where both first reach the same reward, without a KL
    penalty: at nine tenths of the way of the one that got less far. Below 0: NLPO's is."""
    ppo, nlpo = (seed["tasks"][task][name] for name in ("ppo-free", "nlpo-free"))
    start = ppo[min(ppo, key=int)]["reward"]
    level = start + 0.9 * (min(last(ppo)["reward"], last(nlpo)["reward"]) - start)
    both = [at_reward(run, level) for run in (nlpo, ppo)]
    return None if both[0] is None or both[1] is None else both[0] - both[1]


def judge(seeds: Sequence[dict[str, Any]]) -> list[Line]:
    """The bars, each by its worst seed."""
    lines = []
    for task in TASKS:
        runs = [s["tasks"][task.name] for s in seeds]
        rises = [last(r[name])["reward"] - r[name][min(r[name], key=int)]["reward"] for r in runs for name in r]
        lines.append(Line(f"{task.name}: reward gained by the least algorithm and seed", min(rises), "> 0", min(rises) > 0))
        broken = [math.log(last(r["ppo-free"])["perplexity"] / last(r["ppo"])["perplexity"]) for r in runs]
        name = f"{task.name}: nats a token that PPO's text loses without the KL penalty, mean"
        lines.append(Line(name, sum(broken) / len(broken), "> 0", sum(broken) > 0))
        gaps = [gap for s in seeds if (gap := equal_reward(s, task.name)) is not None]
        gap = sum(gaps) / len(gaps) if gaps else math.nan
        lines.append(Line(f"{task.name}: log-perplexity of NLPO less PPO's at equal reward, mean", gap, "< 0", gap < 0))
    lines.append(at_most("minutes, all seeds", sum(sum(s["seconds"].values()) for s in seeds) / 60, 30))
    return lines
