"""Label every hack, fit the reward model again, go on: do the hacks end, or do new ones keep appearing?

A small policy is improved without a KL penalty against a reward model of few comparisons until gold has surely fallen from its
peak while the proxy rose. Then the texts that the proxy pays most for are labelled, each beside one of the first policy, the
reward model is fitted again to everything so far, and the first policy, always the same one, so that rounds can be compared, is
improved against the new one. A control has as many more labels of texts that nobody mined.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backflip.lab.clock import Clock
from backflip.lab.outcome import Line, at_least, at_most
from backflip.lab.seeds import every_seed, over_seeds, told
from backflip.lab.whack_a_mole_figures import gone
from backflip.lab.whack_a_mole_report import report, tables
from backflip.lab.whack_a_mole_settings import ARMS, CONTROL, MINED, Settings
from backflip.seeds import Seeds
from backflip.settings import Tiny, Watch

__all__ = ["QUICK", "TITLE", "Settings", "judge", "run"]

TITLE = "Whack-a-mole: every hack is labelled and the reward model fitted again; how long until the next, and is it another?"

_FULL = Settings()
QUICK = dataclasses.replace(
    _FULL, seeds=1, documents=100, comparisons=40, rounds=2, labelled=8, pool=16,
    tiny=Tiny(vocabulary=320, hidden_size=32, layers=1, heads=2, context=96),
    reward=dataclasses.replace(_FULL.reward, normalization_samples=16, epochs=1.0),
    ppo=dataclasses.replace(_FULL.ppo, steps=4, batch_size=8, sampling=dataclasses.replace(_FULL.ppo.sampling, max_new_tokens=8)),
    watch=Watch(every=2, prompts=8, vectors=False),
)  # fmt: skip
"""Everything once, in seconds; it shows that the parts work, and nothing else."""


def run(settings: Settings, folder: Path, quiet: bool) -> bool:
    """Run every seed, or what is missing of it, and tell it; whether all bars were met."""
    seeds = every_seed(settings, folder, quiet, one)
    return told(settings, folder, seeds, judge(seeds, settings), report, tables=tables(seeds, settings))


def one(seed: int, settings: Settings, folder: Path, quiet: bool) -> dict[str, Any]:
    """The figures of one seed: of each arm, round by round."""
    from backflip.lab import whack_a_mole_stages as stages
    from backflip.lab.reviews_base import compared, demonstrated

    seeds, clock = Seeds(seed), Clock(folder / "clock.json", time.process_time)
    with clock.running("policy"):
        policy = demonstrated(folder / "policy", settings, seeds, quiet)
        few = compared(
            folder / "comparisons.json", policy, settings.comparisons, settings.noise, settings.ppo.sampling, seeds
        )  # fmt: skip
    arms: dict[str, list[dict[str, Any]]] = {}
    for arm in ARMS:
        arms[arm], known = [], list(few)
        for r in range(1, settings.rounds + 1):
            with clock.running(arm):
                place = folder / "first" if r == 1 else folder / arm / f"round{r}"
                arms[arm].append(stages.played(place, policy, known, settings, seeds, quiet))
                if r < settings.rounds:
                    path = folder / arm / f"labels{r}.json"
                    known += stages.labels(path, arm, place, policy, settings, seeds.child("labels", r))
    return {"seed": seed, "arms": arms, "seconds": clock.seconds}


def judge(seeds: Sequence[dict[str, Any]], settings: Settings) -> list[Line]:
    """The bars; where a figure has an interval over seeds, its lower end must be above the bar."""
    found = [s["arms"][MINED][0]["steps"] is not None for s in seeds]
    cured = [each for s in seeds for each in gone(s["arms"][MINED])]
    bought = over_seeds([s["arms"][MINED][-1]["peak"] - s["arms"][CONTROL][-1]["peak"] for s in seeds])
    low, _ = bought.ends
    return [
        at_least("seeds whose first round is hacked, share", statistics.fmean(found), 0.8),
        at_least("mined hacks whose kind does not come back in the next round, share", share(cured), 0.5),
        Line("gold at the last round's peak, mined less control, low end over seeds", low, "> 0", low > 0),
        at_most("minutes of a core a seed, slowest", max(sum(s["seconds"].values()) for s in seeds) / 60, 8),
    ]


def share(cases: Sequence[bool]) -> float:
    """The share of cases that hold; 0 of none, where nothing was shown."""
    return statistics.fmean(cases) if cases else 0.0
