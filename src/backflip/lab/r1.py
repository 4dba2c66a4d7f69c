"""DeepSeek-R1 (DeepSeek-AI 2025, section 2.3) with less than a million parameters, in a world of two languages.

A base model has read sums whose scratchpads are of mixed length and in mixed languages. A cold start of a few hundred faultless
long ones, then GRPO with and without a reward for one language; rejection sampling from as many completions in place of GRPO; a
second stage of GRPO after it; and, on a smaller base model, reinforcement beside imitating what came out.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from backflip.lab.clock import Clock
from backflip.lab.outcome import Line, at_least, at_most
from backflip.lab.r1_report import report, tables
from backflip.lab.r1_settings import Settings
from backflip.lab.seeds import every_seed, told
from backflip.seeds import Seeds
from backflip.settings import Sampling, Tiny

__all__ = ["QUICK", "TITLE", "Settings", "judge", "run"]

TITLE = "The pipeline of R1: cold start, a reward for one language, rejection sampling, a second stage, and distillation."

_FULL = Settings()
QUICK = dataclasses.replace(
    _FULL, seeds=1, documents=2000, demonstrations=32, problems=32, groups=4,
    tiny=Tiny(hidden_size=32, layers=1, heads=2, context=96), small=Tiny(hidden_size=16, layers=1, heads=2, context=96),
    grpo=dataclasses.replace(
        _FULL.grpo, steps=2, batch_size=32, num_generations=4, save_every=2,
        sampling=Sampling(temperature=1.0, max_new_tokens=40, slots=256),
    ),
)  # fmt: skip
"""Everything once, in seconds: it shows that the parts work, and nothing else."""


def run(settings: Settings, folder: Path, quiet: bool) -> bool:
    """Run every seed, or what is missing of it, and tell it; whether all bars were met."""
    seeds = every_seed(settings, folder, quiet, one)
    return told(settings, folder, seeds, judge(seeds), report, tables=tables(seeds))


def one(seed: int, settings: Settings, folder: Path, quiet: bool) -> dict[str, Any]:
    """The figures of one seed: of every stage what its model does, what it drew or read, and how long it took."""
    from backflip.lab import r1_stages as stages

    seeds, clock = Seeds(seed), Clock(folder / "clock.json", time.process_time)
    found: dict[str, Any] = {"seed": seed, "stages": {}, "curves": {}, "kept": {}}

    def stage(name: str, work: Callable[[], Path], reference: Path | None, *, drawn: int = 0, read: int = 0) -> Path:
        with clock.running(name):
            model = work()
        with clock.running("measuring"):
            figures = stages.measured(folder / "measured" / f"{name}.json", model, reference, settings, seeds)
        found["stages"][name] = figures | {"drawn": drawn, "read": read, "seconds": clock.seconds[name]}
        return model

    def reinforced(name: str, start: Path, problems: str, language: float) -> Path:
        model = stage(
            name,
            lambda: stages.reinforce(folder / name, start, settings, seeds, quiet, language=language, problems=problems),
            start, drawn=settings.drawn(),
        )  # fmt: skip
        found["curves"][name] = stages.curve(folder / name)
        return model

    def imitated(name: str, start: Path, teacher: Path, problems: str, tries: int) -> Path:
        with clock.running(name):
            rows, found["kept"][name] = stages.right_samples(
                folder / "samples" / f"{name}.jsonl", teacher, settings, seeds, problems=problems, tries=tries
            )
        return stage(
            name, lambda: stages.imitate(folder / name, start, rows, settings.imitation, seeds, quiet), start,
            drawn=settings.drawn(), read=len(rows),
        )  # fmt: skip

    base = stage("base", lambda: stages.pretrained_base(settings, folder / "base", seeds, quiet), None, read=settings.documents)
    cold = stage(
        "cold", lambda: stages.cold_start(folder / "cold", base, settings, seeds, quiet), base, read=settings.demonstrations
    )
    reinforced("grpo", cold, "first", 0.0)
    reinforced("language", cold, "first", settings.language)
    tries = settings.grpo.num_generations
    second = reinforced("second", imitated("rejection", cold, cold, "first", tries), "second", settings.language)
    small = stage(
        "small", lambda: stages.pretrained_base(settings, folder / "small", seeds, quiet, settings.small), None,
        read=settings.documents,
    )  # fmt: skip
    reinforced("small-rl", small, "first", 0.0)
    imitated("small-sft", small, second, "first", tries)
    imitated("small-wide", small, second, "wide", 1)
    return found | {"seconds": clock.seconds}


def accuracy(seed: dict[str, Any], stage: str) -> float:
    """The accuracy of a stage's model."""
    return float(seed["stages"][stage]["accuracy"]["value"])


def share_of_gain(seed: dict[str, Any]) -> float:
    """What rejection sampling gained in accuracy over the cold start as a share of what GRPO gained, neither with a reward for a
    language; NaN where GRPO gained nothing."""
    cold, grpo, rejection = (accuracy(seed, stage) for stage in ("cold", "grpo", "rejection"))
    return (rejection - cold) / (grpo - cold) if grpo > cold else math.nan


def gained(seeds: Sequence[dict[str, Any]], stage: str, over: str) -> list[float]:
    """By how much the accuracy of one stage's model is above another's, seed by seed."""
    return [accuracy(s, stage) - accuracy(s, over) for s in seeds]


def judge(seeds: Sequence[dict[str, Any]]) -> list[Line]:
    """The bars, each by its worst seed."""
    plain, single = ([float(s["stages"][stage]["other"]) for s in seeds] for stage in ("grpo", "language"))
    other = min(a - b for a, b in zip(plain, single, strict=True))
    mixed = min(float(s["stages"]["cold"]["mixed"]["value"] - s["stages"]["language"]["mixed"]["value"]) for s in seeds)
    shares = [share_of_gain(s) for s in seeds]
    share = math.nan if any(map(math.isnan, shares)) else min(shares)
    second, distilled = (min(gained(seeds, *pair)) for pair in (("second", "rejection"), ("small-wide", "small-rl")))
    minutes = max(sum(s["seconds"].values()) for s in seeds) / 60
    return [
        at_least("words of the other language, fewer with a reward for one than without, worst seed", other, 0.2),
        at_least("thoughts in both languages, fewer with it than after the cold start, worst seed", mixed, 0.2),
        at_most("words of the other language with it, worst seed", max(single), 0.05),
        at_most("accuracy that the reward for one language costs, worst seed", max(gained(seeds, "grpo", "language")), 0.05),
        at_least("accuracy that GRPO gains over the cold start, worst seed", min(gained(seeds, "grpo", "cold")), 0.1),
        at_least("gain of rejection sampling as a share of GRPO's, worst seed", share, 0.8),
        at_least("accuracy that the second stage gains over rejection sampling, worst seed", second, 0.0),
        at_least("accuracy of the small model distilled on a problem each less reinforced, worst seed", distilled, 0.0),
        at_most("core-minutes a seed, slowest", minutes, 20),
    ]
