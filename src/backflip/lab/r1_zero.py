"""Does reasoning appear by reinforcement alone? DeepSeek-R1-Zero (DeepSeek-AI 2025, section 2.2) with a million parameters.

A small model learns from a noisy corpus of sums, most of them answered directly, few with a full scratchpad. GRPO then rewards
nothing but right answers (1) and the template (0.1): accuracy should rise, and completions grow longer, because on sums a
scratchpad helps. On a control task, copying, it does not, and without GRPO's length bias nothing should grow. Reflection, a
`wait`, stands in 2 % of the corpus, and what it is worth is measured before the first step too. GRPO, PPO, RLOO and REINFORCE
are compared at equal samples.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backflip.lab.clock import Clock
from backflip.lab.outcome import Line, at_least, at_most
from backflip.lab.r1_zero_report import report
from backflip.lab.r1_zero_settings import Settings
from backflip.lab.seeds import every_seed, told
from backflip.seeds import Seeds
from backflip.settings import Sampling, Tiny

__all__ = ["QUICK", "TITLE", "Settings", "judge", "run"]

TITLE = "Reasoning by reinforcement alone: sums, scratchpads, length, a control task, and what reflection is worth."

_FULL = Settings()
QUICK = Settings(
    seeds=1, documents=2000, compare_steps=2, compare_batch=32, control_steps=2, control_batch=32, control_runs=2, problems=16,
    problems_between=8, tries=4, tiny=Tiny(hidden_size=32, layers=1, heads=2, context=128),
    pretrain=dataclasses.replace(_FULL.pretrain, epochs=1.0),
    grpo=dataclasses.replace(
        _FULL.grpo, steps=4, batch_size=32, num_generations=4, save_every=2,
        sampling=Sampling(temperature=1.0, max_new_tokens=48, slots=256),
    ),
)  # fmt: skip
"""Everything once, in a minute: it shows that the parts work, and nothing else."""


def run(settings: Settings, folder: Path, quiet: bool) -> bool:
    """Run every seed, or what is missing of it, and tell it; whether all bars were met."""
    seeds = every_seed(settings, folder, quiet, one)
    return told(settings, folder, seeds, judge(seeds), report)


def one(seed: int, settings: Settings, folder: Path, quiet: bool) -> dict[str, Any]:
    """The figures of one seed."""
    from backflip.lab import r1_zero_stages as stages

    seeds, clock = Seeds(seed), Clock(folder / "clock.json")

    def measured(name: str, model: Path, *, copying: bool = False, many: bool = True) -> dict[str, Any]:
        problems = settings.problems if many else settings.problems_between
        with clock.running("measuring"):
            return stages.measured(
                folder / "measured" / f"{name}.json", model, "copy" if copying else "add", settings, seeds, problems=problems
            )

    with clock.running("pretraining"):
        start = stages.pretrained_base(settings, folder / "base", seeds, quiet)
    main = folder / "grpo"
    with clock.running("grpo"):
        stages.reinforce(main, start, settings.grpo, "add", seeds, quiet)
    found: dict[str, Any] = {"seed": seed, "before": measured("before", start), "after": measured("after", main / "model")}
    found["curve"] = stages.curve(main)
    models = {0: start, **stages.checkpoints(main)}
    found["checkpoints"] = {step: measured(f"grpo-{step}", model, many=False) for step, model in models.items()}

    found["control"] = {"before": measured("control-before", start, copying=True)}
    for name, online in (("control", settings.control()), ("control-biased", settings.biased_control())):
        with clock.running("control"):
            stages.reinforce(folder / name, start, online, "copy", seeds, quiet)
        after = measured(f"{name}-after", folder / name / "model", copying=True)
        found["control"][name] = {"after": after, "curve": stages.curve(folder / name)}

    lengths = [found["control"]["control"]["after"]["length"]]
    for k in range(1, settings.control_runs):
        with clock.running("control"):
            stages.reinforce(folder / f"control-{k}", start, settings.control(), "copy", seeds.child("control", k), quiet)
        lengths.append(measured(f"control-{k}-after", folder / f"control-{k}" / "model", copying=True)["length"])
    found["control"]["lengths"] = lengths

    found["compared"] = {}
    for name, online in settings.compared().items():
        where = folder / "compare" / name
        with clock.running("comparison"):
            stages.apart(where, start, online, "add", seeds, quiet)
        found["compared"][name] = {
            "after": measured(f"compare-{name}", where / "model", many=False),
            "curve": stages.curve(where),
            "seconds": stages.seconds(where),
            "peak_rss_mb": json.loads((where / "result.json").read_text())["peak_rss_mb"],
        }
    found["peak_rss_mb"] = json.loads((main / "result.json").read_text())["peak_rss_mb"]
    found["seconds"] = clock.seconds
    return found


def judge(seeds: Sequence[dict[str, Any]]) -> list[Line]:
    """The bars, each by its worst seed."""
    before, after = ([s[when]["pass@1"] for s in seeds] for when in ("before", "after"))
    longer = [s["after"]["length"] / s["before"]["length"] for s in seeds]
    control = [statistics.fmean(s["control"]["lengths"]) / s["control"]["before"]["length"] for s in seeds]
    matched = sum(s["before"]["reflection"]["gain"] is not None for s in seeds)
    return [
        at_least("accuracy of the base model, lowest seed", min(before), 0.10),
        at_most("accuracy of the base model, highest seed", max(before), 0.20),
        at_least("accuracy after GRPO, worst seed", min(after), 0.70),
        at_least("mean length after over before, worst seed", min(longer), 1.5),
        at_most("control task: length after Dr. GRPO over before, mean of its runs, worst seed", max(control), 1.05),
        at_least("seeds whose reflection is measured at step 0, of all", matched / len(seeds), 1.0),
        at_most("minutes a seed, slowest", max(sum(s["seconds"].values()) for s in seeds) / 60, 25),
    ]
