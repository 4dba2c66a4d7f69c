"""What is read off the runs of `guard`: curves, how much of a peak a rule keeps, and how often."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from backflip.lab.guard_recorder import Seen
from backflip.lab.guard_settings import HELD, HONEST, LEFT_ALONE


def curve(seen: Sequence[Seen]) -> dict[str, list[float]]:
    """A run look by look: gold, the proxy, every judge, KL."""
    columns = {
        "step": [float(s.look.step) for s in seen], "gold": [s.worth for s in seen],
        "proxy": [mean(s.look.proxy) for s in seen], "kl": [mean(s.look.kl) for s in seen],
        "entropy": [s.look.entropy for s in seen],
    }  # fmt: skip
    return columns | {name: [mean(s.look.judges[name]) for s in seen] for name in seen[0].look.judges}


def mean(values: Sequence[float]) -> float:
    """Their mean."""
    return sum(values) / len(values)


def share_kept(curve: Mapping[str, Sequence[float]], keeps: int) -> float:
    """What the policy that a rule keeps gained in gold, of the most that any look had gained; 1 where nothing was ever gained."""
    gold = curve["gold"]
    peak = max(gold) - gold[0]
    return (gold[keeps] - gold[0]) / peak if peak > 0 else 1.0


def overoptimised(curve: Mapping[str, Sequence[float]], enough: float) -> bool:
    """Whether a run that nobody stops ends with too little of its peak."""
    return share_kept(curve, len(curve["gold"]) - 1) < enough


def counts(seeds: Sequence[dict[str, Any]], rule: str, enough: float) -> dict[str, int]:
    """Of a rule: in how many of the runs that over-optimise it keeps enough, how many of these there are, and in how many healthy
    ones it stops. Honest runs are healthy whatever they end with, for gold itself cannot be gamed; held ones where they end with
    enough of their peak."""
    runs = [run for s in seeds for run in s["runs"]]
    gamed = [run for run in runs if run["kind"] != HONEST and overoptimised(run["curve"], enough)]
    healthy = [
        run for run in runs
        if run["kind"] == HONEST or (run["kind"] == HELD and not overoptimised(run["curve"], enough))
    ]  # fmt: skip
    return {
        "kept": sum(share_kept(run["curve"], run["stops"][rule]["keeps"]) >= enough for run in gamed), "gamed": len(gamed),
        "stopped": sum(run["stops"][rule]["at"] is not None for run in healthy), "healthy": len(healthy),
    }  # fmt: skip


class Raised(NamedTuple):
    """Of an alarm: in how many runs that over-optimise it was raised and in how many healthy ones, and how many steps after the
    peak of gold, the median over the former; None where it was never raised in one."""

    gamed: int
    healthy: int
    after: float | None


def raised(seeds: Sequence[dict[str, Any]], enough: float) -> dict[str, Raised]:
    """Every alarm that was ever raised, those most often raised in over-optimising runs first."""
    runs = [run for s in seeds for run in s["runs"]]
    gamed, healthy = (
        [run for run in runs if run["kind"] in kinds and overoptimised(run["curve"], enough) in outcomes]
        for kinds, outcomes in (((LEFT_ALONE, HELD), (True,)), ((HONEST,), (True, False)))
    )
    found = {}
    for kind in {kind for run in runs for kind in run["alarms"]}:
        late = [_after_peak(run["curve"], run["alarms"][kind]) for run in gamed if kind in run["alarms"]]
        found[kind] = Raised(len(late), sum(kind in run["alarms"] for run in healthy), statistics.median(late) if late else None)
    return dict(sorted(found.items(), key=lambda item: (-item[1].gamed, item[1].healthy, item[0])))


def _after_peak(curve: Mapping[str, Sequence[float]], at: int) -> float:
    return curve["step"][at] - curve["step"][max(range(len(curve["gold"])), key=curve["gold"].__getitem__)]


def share(part: int, whole: int) -> float:
    """A part of a whole; 0 of nothing."""
    return part / whole if whole else 0.0
