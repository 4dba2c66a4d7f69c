"""Does a reward model know when it is over-optimised? Stiennon et al. 2020, figure 5, with reviews whose hidden worth is known.

One proxy, optimised harder and harder: by PPO with ever smaller KL penalties, and by best of n with ever larger n. How often are
the texts better than the first policy's, by gold; and how often does the proxy say so? What the proxy says only rises with KL;
what is true rises and falls. With `--set runs=FOLDER` the policies and runs of `overoptimisation` are read instead of made again.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from backflip.lab.clock import Clock
from backflip.lab.outcome import Line, at_least, at_most
from backflip.lab.overoptimisation import QUICK as OPTIMISED
from backflip.lab.seeds import every_seed, told
from backflip.lab.stiennon_report import report, tables
from backflip.lab.stiennon_settings import Settings
from backflip.seeds import Seeds

__all__ = ["QUICK", "TITLE", "Settings", "judge", "run"]

TITLE = "Predicted and true win rate over KL: one reward model optimised ever harder, by PPO and by best of n."

QUICK = Settings(
    seeds=1, documents=OPTIMISED.documents, prompts=OPTIMISED.prompts, samples=OPTIMISED.samples, tiny=OPTIMISED.tiny,
    pretrain=OPTIMISED.pretrain, reward=OPTIMISED.reward, ppo=OPTIMISED.ppo, watch=OPTIMISED.watch, width=OPTIMISED.middle_size,
    comparisons=OPTIMISED.middle, betas=(0.0, *OPTIMISED.betas),
)  # fmt: skip
"""Everything once, in seconds; it shows that the parts work, and nothing else."""

POINT = 0.01
"""By how much a predicted win rate may fall from one policy to the next and still be said to rise."""

Seed = dict[str, Any]


def run(settings: Settings, folder: Path, quiet: bool) -> bool:
    """Run every seed, or what is missing of it, and tell it; whether all bars were met."""
    seeds = every_seed(settings, folder, quiet, one)
    return told(settings, folder, seeds, judge(seeds), report, tables=tables(seeds))


def one(seed: int, settings: Settings, folder: Path, quiet: bool) -> Seed:
    """The figures of one seed."""
    from backflip.lab import stiennon_figures as figures
    from backflip.lab.overoptimisation_stages import Bench

    clock = Clock(folder / "clock.json")
    lender = None if settings.runs is None else Path(settings.runs) / f"seed{seed}"
    bench = Bench(folder, settings, Seeds(seed), quiet, settings.comparisons, lender)
    with clock.running("policy and proxy"):
        proxy = bench.proxy(settings.width, settings.comparisons)
    with clock.running("samples"):
        pool = bench.pool
        [scores_PN] = bench.scores(proxy)
    heat = figures.temperature(scores_PN, pool.gold_PN)
    found: Seed = {"seed": seed, "accuracy": proxy.accuracy, "temperature": heat, "runs": {}}
    prompts = [prompt.plain for prompt in pool.prompts]
    for beta in settings.betas:
        with clock.running("ppo"):
            seen = bench.optimised(proxy, beta)
        found["runs"][f"{beta:g}"] = figures.by_look(seen, prompts, scores_PN, pool.gold_PN, heat)
    with clock.running("best of n"):
        found["best of n"] = figures.by_n(scores_PN, pool.gold_PN, heat, settings.most)
    return found | {"seconds": clock.seconds}


def judge(seeds: Sequence[Seed]) -> list[Line]:
    """The bars, of the means over seeds: of the last policy under each penalty, the first policy before them."""
    ends = last_policies(seeds)
    by_kl = sorted(ends, key=lambda end: end["kl"])
    told = [0.5, *(end["predicted"] for end in by_kl)]
    true = [0.5, *(end["true"] for end in by_kl)]
    apart = min((a["kl"] - b["kl"] for a, b in itertools.pairwise(ends)), default=0.0)
    return [
        at_most("predicted win rate: most it falls from one policy to the next by KL", falls(told), POINT),
        at_least("true win rate: most above a half", max(true) - 0.5, 0.1),
        at_least("true win rate: lost again from there to the furthest policy", max(true) - true[-1], 0.05),
        Line("KL in the end: least by which a smaller β goes further, nats", apart, "> 0", apart > 0),
        at_most("best of n: most the predicted win rate falls from n to n", falls(_mean_of(seeds, "predicted")), POINT),
        at_most("minutes in all", sum(sum(s["seconds"].values()) for s in seeds) / 60, 60),
    ]  # fmt: skip


def last_policies(seeds: Sequence[Seed]) -> list[dict[str, float]]:
    """Of each penalty, the smallest first: KL, true and predicted win rate of the last policy, means over seeds."""
    return [
        {name: fmean([s["runs"][beta][name][-1] for s in seeds]) for name in ("kl", "true", "predicted")}
        for beta in sorted(seeds[0]["runs"], key=float)
    ]


def falls(values: Sequence[float]) -> float:
    """The most that a value lies below the one before it; 0 where they only rise."""
    return max((max(0.0, a - b) for a, b in itertools.pairwise(values)), default=0.0)


def _mean_of(seeds: Sequence[Seed], name: str) -> list[float]:
    return [fmean(points) for points in zip(*(s["best of n"][name] for s in seeds), strict=True)]
