"""What does it cost to learn from comparisons of what the policy no longer writes?

Christiano et al. 2017 asked while they learned; most who followed asked everything first. Between the two lies how stale the
labels are: how many policies ago somebody wrote what was compared. Arms with as many comparisons and updates, held as near the
first policy, ask in 1, 2, 4 or 8 portions about the policy of the moment, and, with the most portions, about that of one or two
portions ago, which makes the same comparisons older and changes nothing else. In one more arm a rule chooses what is asked.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backflip.lab.active_loop_figures import slope
from backflip.lab.active_loop_report import at_random, report, tables
from backflip.lab.active_loop_settings import ONCE, Settings
from backflip.lab.clock import Clock
from backflip.lab.outcome import Line, at_most
from backflip.lab.seeds import every_seed, over_seeds, told
from backflip.seeds import Seeds
from backflip.settings import Tiny

__all__ = ["QUICK", "TITLE", "Settings", "judge", "run"]

TITLE = "Stale labels: the same comparisons asked at once, in portions, or late, against the gold that comes of them."

_FULL = Settings()
QUICK = dataclasses.replace(
    _FULL, seeds=1, documents=100, comparisons=40, portions=(1, 2), delays=(1,), candidates=2, tested=8,
    tiny=Tiny(vocabulary=320, hidden_size=32, layers=1, heads=2, context=96),
    reward=dataclasses.replace(_FULL.reward, normalization_samples=16, epochs=1.0),
    ppo=dataclasses.replace(_FULL.ppo, steps=1, batch_size=8, sampling=dataclasses.replace(_FULL.ppo.sampling, max_new_tokens=8)),
)  # fmt: skip
"""Everything once, in seconds; it shows that the parts work, and nothing else."""


def run(settings: Settings, folder: Path, quiet: bool) -> bool:
    """Run every seed, or what is missing of it, and tell it; whether all bars were met."""
    seeds = every_seed(settings, folder, quiet, one)
    return told(settings, folder, seeds, judge(seeds, settings), report, tables=tables(seeds, settings))


def one(seed: int, settings: Settings, folder: Path, quiet: bool) -> dict[str, Any]:
    """The figures of one seed, arm by arm."""
    from backflip.lab import active_loop_stages as stages
    from backflip.lab.reviews_base import demonstrated

    seeds, clock = Seeds(seed), Clock(folder / "clock.json", time.process_time)
    with clock.running("policy"):
        policy = demonstrated(folder / "policy", settings, seeds, quiet)
    arms = {}
    for name, arm in settings.arms().items():
        with clock.running(name):
            place = folder / name.replace(",", "").replace(" ", "-")
            arms[name] = stages.gone(place, policy, arm, settings, seeds, quiet)
    return {"seed": seed, "arms": arms, "seconds": clock.seconds}


def judge(seeds: Sequence[dict[str, Any]], settings: Settings) -> list[Line]:
    """The bars; where a figure has an interval over seeds, its end nearer to 0 must be beyond the bar."""
    costs = over_seeds([slope(s, at_random(settings)) for s in seeds])
    _, high = costs.ends
    better = over_seeds([s["arms"][settings.freshest]["gold"] - s["arms"][ONCE]["gold"] for s in seeds])
    low, _ = better.ends
    return [
        Line("gold per policy that comparisons are older, high end over seeds", high, "< 0", high < 0),
        Line("gold of the freshest comparisons less that of the stalest, low end over seeds", low, "> 0", low > 0),
        at_most("minutes of a core a seed, slowest", max(sum(s["seconds"].values()) for s in seeds) / 60, 6),
    ]
