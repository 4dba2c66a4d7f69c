"""What do more tries and longer thinking buy? OpenAI's o1 showed accuracy rising with the logarithm of what is spent on it.

A small base model writes many completions of sums it has never seen. Told for 1 to 64 tries: how often one of them is right,
which an exact checker would find (pass@k, the upper bound), how often the favourite of a learned verifier is (a reward model,
trained on the base model's own right and wrong completions), and how often the commonest answer is (majority vote). And for one
try: accuracy by the tokens of its thought, and with a limit on its length. Each with a log-linear fit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backflip.lab.arithmetic_base import base_of
from backflip.lab.clock import Clock
from backflip.lab.outcome import Line, at_least
from backflip.lab.seeds import every_seed, told
from backflip.lab.test_time_report import report, tables
from backflip.lab.test_time_settings import Settings
from backflip.seeds import Seeds
from backflip.settings import Tiny

__all__ = ["QUICK", "TITLE", "Settings", "judge", "run"]

TITLE = "More tries and longer thinking: majority vote, best of n by a learned verifier, and the exact checker's bound."

_FULL = Settings()
QUICK = Settings(
    seeds=1, documents=2000, problems=8, tries=8, most=8, draws=20, verifier_problems=16, verifier_tries=8,
    tiny=Tiny(hidden_size=32, layers=1, heads=2, context=128), sampling=dataclasses.replace(_FULL.sampling, max_new_tokens=48),
    verifier=dataclasses.replace(_FULL.verifier, epochs=1.0),
)  # fmt: skip
"""Everything once, in a minute: it shows that the parts work, and nothing else."""


def run(settings: Settings, folder: Path, quiet: bool) -> bool:
    """Run every seed, or what is missing of it, and tell it; whether all bars were met."""
    seeds = every_seed(settings, folder, quiet, one)
    return told(settings, folder, seeds, judge(seeds), report, tables=tables(seeds))


def one(seed: int, settings: Settings, folder: Path, quiet: bool) -> dict[str, Any]:
    """The figures of one seed."""
    from backflip.lab import test_time_figures as figures
    from backflip.lab import test_time_stages as stages

    seeds, clock = Seeds(seed), Clock(folder / "clock.json")
    with clock.running("pretraining"):
        base = base_of(settings, seed, folder, quiet)
    with clock.running("verifier"):
        pairs = stages.lessons(folder / "lessons.jsonl", base, settings, seeds)
        verifier = stages.verifier(folder / "verifier", base, pairs, settings, seed, quiet)
    with clock.running("trying"):
        problems = stages.tries(folder / "tries.json", base, verifier, settings, seeds)
    with clock.running("counting"):
        found = {
            "tries": figures.by_tries(problems, settings.most, settings.draws, seeds.numpy("majority")),
            "thinking": figures.by_thinking(problems),
            "allowance": figures.by_allowance(problems),
            "gain of thinking": figures.gain_of_thinking(problems),
            "told apart": figures.told_apart(problems),
            "told apart at equal length": figures.told_apart(problems, equal_thoughts=True),
        }
    return {
        "seed": seed, **found, "verifier": stages.quality(folder / "verifier"), "pairs": len(pairs), "seconds": clock.seconds,
    }  # fmt: skip


def judge(seeds: Sequence[dict[str, Any]]) -> list[Line]:
    """The bars, each by its worst seed."""

    def gained(name: str) -> float:
        return min(float(s["tries"][name]["value"][-1] - s["tries"][name]["value"][0]) for s in seeds)

    def r2(name: str) -> float:
        return min(float(s["tries"][name]["fit"]["r2"]) for s in seeds)

    most = seeds[0]["tries"]["checker"]["x"][-1]
    told_apart = min(s["told apart"] or 0.0 for s in seeds)
    thinking = min((s["gain of thinking"] or {"value": 0.0})["value"] for s in seeds)
    return [
        at_least("verifier: right above wrong of the same test problem, worst seed", told_apart, 0.8),
        at_least(f"best of {most} by the verifier over one try, worst seed", gained("verifier"), 0.1),
        at_least(f"best of {most} by the exact checker over one try, worst seed", gained("checker"), 0.2),
        at_least("R² of the log-linear fit, best of k by the checker, worst seed", r2("checker"), 0.9),
        at_least("R² of the log-linear fit, best of k by the verifier, worst seed", r2("verifier"), 0.9),
        at_least("longer thoughts over shorter ones of the same problem, worst seed", thinking, 0.0),
    ]
