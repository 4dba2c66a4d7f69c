"""What makes a reward model good, and what keeps it from being gamed? Data, loss, size, kind of feedback, and ensembles.

In the world of reviews, where the truth is known and simulated people err and disagree: whether pairs of one ranking belong in
one batch (Ouyang et al. 2022, footnote 5); accuracy by the number of comparisons and the size of the model; comparisons,
rankings and ratings at equal time of the people; Bradley–Terry beside regression on Elo at few games a text; and the gold of
the best of n by one model and by ensembles (Coste et al. 2023), also where a quarter of the labels is turned round. Accuracy is
told on gold's own pairs.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from backflip.lab.clock import Clock
from backflip.lab.outcome import Line, at_most
from backflip.lab.reward_models_figures import by_size, doubling, fall, interval, last, overfit
from backflip.lab.reward_models_report import report, tables
from backflip.lab.reward_models_settings import Settings
from backflip.lab.seeds import every_seed, told
from backflip.seeds import Seeds

__all__ = ["QUICK", "TITLE", "Settings", "judge", "run"]

TITLE = "Reward models: over-fitting, size and data, rankings beside ratings and Elo, ensembles under best of n."

_FULL = Settings()
QUICK = Settings(
    seeds=1, documents=300, prompts=12, samples=9, test_prompts=8, rankings=6, overfit_epochs=2, overfit_size="40x1",
    counts=(8, 16), sizes=("32x1", "40x1"), size_comparisons=(12,), minutes=36, games=(1, 2), game_prompts=4,
    proxy_comparisons=10, members=2, best_prompts=2, best_of=8,
    pretrain=dataclasses.replace(_FULL.pretrain, epochs=8.0, batch_size=8),
)  # fmt: skip
"""Everything once, in seconds; it shows that the parts work, and nothing else."""


def run(settings: Settings, folder: Path, quiet: bool) -> bool:
    """Run every seed, or what is missing of it, and tell it; whether all bars were met."""
    seeds = every_seed(settings, folder, quiet, one)
    return told(settings, folder, seeds, judge(seeds), report, tables=tables(seeds))


def one(seed: int, settings: Settings, folder: Path, quiet: bool) -> dict[str, Any]:
    """The figures of one seed."""
    from backflip.lab import reward_models_stages as stages

    clock, found = Clock(folder / "clock.json", now=time.process_time), dict[str, Any](seed=seed)
    bench = stages.Bench(folder, settings, Seeds(seed), quiet)
    with clock.running("base models"):
        for size in settings.sizes:
            bench.base(size)
    with clock.running("texts"):
        assert bench.pools
    for name, work in (
        ("overfitting", stages.overfitting), ("scaling", stages.scaling), ("feedback", stages.feedback),
        ("ensembles", stages.ensembles),
    ):  # fmt: skip
        with clock.running(name):
            found[name] = work(bench)
    found["seconds"] = clock.seconds
    return found


def judge(seeds: Sequence[dict[str, Any]]) -> list[Line]:
    """The bars, each by the mean over seeds; where there are two seeds or more, by the lower end of its 95 % interval."""

    def positive(name: str, values: Sequence[float]) -> Line:
        mean, low, high = interval(values)
        several = len(seeds) > 1
        told = f"{name} ({low:.3g} to {high:.3g})" if several else name
        return Line(told, mean, "> 0, its 95 % interval too" if several else "> 0", low > 0)

    def less(first: str, second: str) -> list[float]:
        kinds = [s["feedback"]["equal time"] for s in seeds]
        return [float(kind[first]["accuracy"] - kind[second]["accuracy"]) for kind in kinds]

    lines = [
        positive("held-out log loss, shuffled pairs less all pairs together, at the end", [overfit(s) for s in seeds]),
        positive("accuracy a doubling of comparisons", [doubling(s["scaling"]["counts"], "comparisons") for s in seeds]),
        positive("accuracy a doubling of parameters", [by_size(s["scaling"]["sizes"]) for s in seeds]),
        positive("accuracy, comparisons less raw ratings", less("comparisons", "raw ratings")),
        positive("accuracy, rankings of four less raw ratings", less("rankings of four", "raw ratings")),
    ]
    for i, row in enumerate(seeds[0]["feedback"]["elo"][:2]):
        both = [s["feedback"]["elo"][i] for s in seeds]
        name = f"accuracy, Bradley–Terry less Elo at {row['games']} games a text"
        lines.append(positive(name, [b["bradley-terry"]["accuracy"] - b["elo"]["accuracy"] for b in both]))
    for labels in seeds[0]["ensembles"]:
        lines += _gamed(seeds, labels, positive)
    lines.append(at_most("processor minutes a seed, slowest", max(sum(s["seconds"].values()) for s in seeds) / 60, 15))
    return lines


def _gamed(seeds: Sequence[dict[str, Any]], labels: str, positive: Callable[[str, Sequence[float]], Line]) -> list[Line]:
    """Whether a single model loses gold past its peak, and ensembles do not."""
    lines = [positive(f"gold a single model loses past its peak, {labels}", [fall(s, labels, "single") for s in seeds])]
    for rule in ("worst", "uncertainty"):
        lost = [fall(s, labels, rule) for s in seeds]
        lines.append(at_most(f"gold lost past its peak by {rule}, {labels}, mean", sum(lost) / len(lost), 0.05))
        gained = [last(s, labels, rule) - last(s, labels, "single") for s in seeds]
        lines.append(positive(f"gold at the largest n, {rule} less a single model, {labels}", gained))
    return lines
