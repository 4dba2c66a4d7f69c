"""Is it better to ask often? Five rounds of 300 comparisons beside one of 1,500, and a hack that somebody plants on the way.

Iterated online RLHF (Bai et al. 2022, section 4.5) asks about what the policy writes now. At equal comparisons, updates and nats,
gold of the last policy is compared with that of a policy improved once. In two more arms comparisons that prefer a text which
calls its thing terrible are put into the store before the second round's reward model is fitted, and stay there: one arm has a
monitor whose suspects are put before people, the other has nobody who looks.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backflip.lab.clock import Clock
from backflip.lab.many_rounds_report import report, tables
from backflip.lab.many_rounds_settings import LEFT, MINED, ONLINE, STATIC, Settings
from backflip.lab.outcome import Line, at_least, at_most
from backflip.lab.seeds import every_seed, over_seeds, told
from backflip.seeds import Seeds
from backflip.settings import Tiny, Watch

__all__ = ["QUICK", "TITLE", "Settings", "judge", "run"]

TITLE = "Asking often against asking once, and a planted hack that is mined, labelled and gone."

_FULL = Settings()
QUICK = dataclasses.replace(
    _FULL, seeds=1, documents=100, prompts=40, planted=8, watch=Watch(every=1, prompts=8, threshold=1000.0),
    tiny=Tiny(vocabulary=320, hidden_size=32, layers=1, heads=2, context=96),
    loop=dataclasses.replace(
        _FULL.loop, rounds=4, comparisons=16, arena_prompts=6,
        sampling=dataclasses.replace(_FULL.loop.sampling, max_new_tokens=8),
        reward=dataclasses.replace(_FULL.loop.reward, batch_size=8, normalization_samples=8),
        ppo=dataclasses.replace(
            _FULL.loop.ppo, steps=1, batch_size=8, sampling=dataclasses.replace(_FULL.loop.ppo.sampling, max_new_tokens=8)
        ),
    ),
)  # fmt: skip
"""Everything once, in seconds; it shows that the parts work, and nothing else."""


def run(settings: Settings, folder: Path, quiet: bool) -> bool:
    """Run every seed, or what is missing of it, and tell it; whether all bars were met."""
    seeds = every_seed(settings, folder, quiet, one)
    return told(settings, folder, seeds, judge(seeds, settings), report, tables=tables(seeds))


def one(seed: int, settings: Settings, folder: Path, quiet: bool) -> dict[str, Any]:
    """The figures of one seed: of each arm, generation by generation."""
    from backflip.lab import many_rounds_stages as stages
    from backflip.lab.reviews_base import demonstrated

    seeds, clock = Seeds(seed), Clock(folder / "clock.json")
    with clock.running("policy"):
        policy = demonstrated(folder / "policy", settings, seeds, quiet)
    arms = {}
    for arm, loop in settings.arms().items():
        with clock.running(arm):
            arms[arm] = stages.gone_round(
                folder / f"{arm.replace(' ', '-')}.json", loop, policy, settings, seeds, quiet,
                planting=(settings.hacked, settings.planted) if arm in (MINED, LEFT) else None,
            )  # fmt: skip
    return {"seed": seed, "arms": arms, "seconds": clock.seconds}


def judge(seeds: Sequence[dict[str, Any]], settings: Settings) -> list[Line]:
    """The bars; where a figure has an interval over seeds, its lower end must be above the bar."""
    arms = [s["arms"] for s in seeds]
    better = over_seeds([a[ONLINE]["gold"][-1] - a[STATIC]["gold"][-1] for a in arms])
    low, _ = better.ends
    rises = [
        statistics.fmean(a[ONLINE]["rating"][r + 1] - a[ONLINE]["rating"][r] for a in arms) for r in range(settings.loop.rounds)
    ]
    hacked, cured = settings.hacked, settings.hacked + 2
    sour = {arm: [statistics.fmean(a[arm]["sour"][r] for a in arms) for r in (hacked, cured)] for arm in (MINED, LEFT)}
    asked = min(sum(a[MINED]["mined"]) for a in arms)
    minutes = max(sum(s["seconds"].values()) for s in seeds) / 60
    return [
        Line("gold of asking often less that of asking once, low end over seeds", low, "> 0", low > 0),
        Line("Elo points gained in the least of the rounds, mean", min(rises), "> 0", min(rises) > 0),
        at_least("share of texts with the planted hack once it is learned, mean", sour[MINED][0], 0.2),
        at_most("the same two rounds later, suspects labelled, mean", sour[MINED][1], 0.05),
        at_least("questions about suspects, least seed", asked, 1),
        Line(
            "share of hacked texts then, less than where nobody looked, mean", sour[LEFT][1] - sour[MINED][1], "> 0",
            sour[LEFT][1] > sour[MINED][1],
        ),
        at_most("minutes a seed, slowest", minutes, 30),
    ]  # fmt: skip
