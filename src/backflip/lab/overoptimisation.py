"""How does gold move while a proxy is optimised? Gao, Schulman & Hilton 2022, with reviews whose hidden worth is known.

A small policy writes like demonstrations. Proxies of three sizes learn from three numbers of comparisons of its samples, which
gold answers. Then each is optimised: by best of n, on the same samples for all of them; and by PPO without a KL penalty. Gold and
proxy stand in standard deviations of the first policy's samples against √KL, and Gao's forms are fitted to them, in whole and
only to the beginning. Beside it: what a KL penalty does that stopping early does not, ensembles, how often a proxy is right the
further the policy has gone, and the texts that it likes best in the end.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from backflip.lab.clock import Clock
from backflip.lab.many_tries import log_linear
from backflip.lab.outcome import Line, at_least, at_most
from backflip.lab.overoptimisation_report import report, tables
from backflip.lab.overoptimisation_settings import Settings
from backflip.lab.seeds import Interval, every_seed, over_seeds, told
from backflip.maths.overoptimisation import BON, RL, fit
from backflip.seeds import Seeds
from backflip.settings import Tiny

__all__ = ["QUICK", "TITLE", "Settings", "judge", "run"]

TITLE = "Over-optimisation: gold against KL by best of n and by PPO, for proxies of three sizes and three amounts of data."

_FULL = Settings()
QUICK = dataclasses.replace(
    _FULL, seeds=1, documents=400, prompts=4, samples=16, sizes=(8, 16), counts=(20, 40), betas=(0.1,), fitted=8, members=2,
    tiny=Tiny(vocabulary=320, hidden_size=32, layers=1, heads=2, context=96),
    pretrain=dataclasses.replace(_FULL.pretrain, batch_size=8), reward=dataclasses.replace(_FULL.reward, epochs=1.0),
    ppo=dataclasses.replace(_FULL.ppo, steps=4, batch_size=8, sampling=dataclasses.replace(_FULL.ppo.sampling, max_new_tokens=24),
        optim=dataclasses.replace(_FULL.ppo.optim, learning_rate=1e-2)),
    watch=dataclasses.replace(_FULL.watch, every=2, prompts=8),
)  # fmt: skip
"""Everything once, in seconds; it shows that the parts work, and nothing else."""

STEADY = 0.02
"""By how much a proxy may be right more often in one band of KL than in the one before it and still be said to decline."""

Seed = dict[str, Any]


def run(settings: Settings, folder: Path, quiet: bool) -> bool:
    """Run every seed, or what is missing of it, and tell it; whether all bars were met."""
    seeds = every_seed(settings, folder, quiet, one)
    return told(settings, folder, seeds, judge(seeds, settings), report, tables=tables(seeds, settings))


def one(seed: int, settings: Settings, folder: Path, quiet: bool) -> Seed:
    """The figures of one seed."""
    from backflip.lab import overoptimisation_figures as figures
    from backflip.lab.overoptimisation_stages import Bench

    clock = Clock(folder / "clock.json")
    bench = Bench(folder, settings, Seeds(seed), quiet, max(settings.counts))
    with clock.running("policy"):
        comparisons = len(bench.comparisons)
    with clock.running("samples"):
        gold = figures.Unit.of(bench.pool.gold_PN)
        gold_PN = gold(bench.pool.gold_PN)
    found: Seed = {"seed": seed, "comparisons": comparisons, "unit": gold._asdict(), "proxies": {}, "runs": {}}
    with clock.running("proxies"):
        for width in settings.sizes:
            for n in settings.counts:
                proxies = [bench.proxy(width, n, repeat=i) for i in range(settings.independent(n))]
                units = [figures.in_own_units(bench.scores(proxy))[0] for proxy in proxies]
                curve = mean_curve([figures.best_of(scores_PN, gold_PN) for scores_PN in units])
                found["proxies"][proxies[0].name] = {
                    "accuracy": fmean([proxy.accuracy for proxy in proxies]), "curve": curve,
                    "form": figures.told_by_form(curve, settings.fitted),
                }  # fmt: skip
    with clock.running("ensemble"):
        ensemble = bench.proxy(settings.sizes[0], settings.middle, settings.with_members())
        scores_KPN = figures.in_own_units(bench.scores(ensemble))
        found["ensemble"] = figures.under_rules(scores_KPN, gold_PN, settings.uncertainty)
    for width, beta in settings.runs():
        with clock.running("ppo"):
            proxy = bench.proxy(width, settings.middle)
            seen = bench.optimised(proxy, beta)
            unit = figures.Unit.of(bench.scores(proxy))
        curve = figures.looked(seen, gold, unit)
        found["runs"][named(width, beta)] = {
            "width": width, "beta": beta, "curve": curve, "form": figures.reinforced(curve, settings.far),
            "texts": figures.adversarial(seen[-1], settings.texts, gold, unit),
        }  # fmt: skip
    free = found["runs"][named(settings.middle_size, 0.0)]["curve"]
    found["penalty"] = {
        f"{beta:g}": figures.beside(found["runs"][named(settings.middle_size, beta)]["curve"], free) for beta in settings.betas
    }
    found["right"] = figures.by_distance([found["runs"][named(width, 0.0)]["curve"] for width in settings.sizes])
    return found | {"seconds": clock.seconds}


def named(width: int, beta: float) -> str:
    """How a run is called."""
    return f"{width}, β = {beta:g}"


def judge(seeds: Sequence[Seed], settings: Settings) -> list[Line]:
    """The bars."""
    from backflip.lab import overoptimisation_figures as figures

    small = f"{settings.sizes[0]}-{settings.middle}"
    last = seeds[0]["proxies"][small]["curve"]["n"][-1]
    forms = [[s["proxies"][name]["form"] for s in seeds] for name in seeds[0]["proxies"]]
    rl = [[s["runs"][named(width, 0.0)]["form"]["r2"] for s in seeds] for width in settings.sizes]
    bon_r2 = [over_seeds([f["r2"] for f in each]).mean for each in forms]
    together_r2 = [
        figures.told_by_form(mean_curve([s["proxies"][name]["curve"] for s in seeds]), settings.fitted)["r2"]
        for name in seeds[0]["proxies"]
    ]
    free = [[s["runs"][named(width, 0.0)]["curve"] for s in seeds] for width in settings.sizes]
    by_look = [figures.reinforced(mean_curve(each), settings.far)["r2 whole"] for each in free]
    by_distance = [figures.at_equal_distance(each, settings.far) for each in free]
    miss = max((over_seeds([f["miss"] for f in each]).mean for each in forms), key=abs)
    right = together(seeds) or [0.5]  # nothing to tell apart is a coin
    lines = []
    for width, ppo in zip(settings.sizes, free, strict=True):
        bon = [s["proxies"][f"{width}-{settings.middle}"]["curve"] for s in seeds]
        who, may_hold = f"proxy of width {width}", width == settings.sizes[-1]  # small proxies must be gamed
        lines += rises_and_falls(f"best of n, {who}", bon, f"n = {last:g}", may_hold)
        lines += rises_and_falls(f"PPO, {who}", ppo, "the last step", may_hold)
    few = [s["proxies"][f"{settings.middle_size}-{settings.counts[0]}"]["curve"] for s in seeds]
    who = f"proxy of width {settings.middle_size} and {settings.counts[0]} comparisons"
    lines += rises_and_falls(f"best of n, {who}", few, f"n = {last:g}")
    return [
        *lines,
        at_least("R² of the best-of-n form on the mean curve of the seeds, worst proxy", min(together_r2), 0.9),
        at_least("R² of the reinforcement form on the mean of the seeds look by look, worst size", min(by_look), 0.9),
        at_least(
            f"R² of the reinforcement form on the mean of the seeds at equal KL, to {settings.far:g} nats, worst size",
            min(fit(RL, c["distance"], c["gold"]).r2 for c in by_distance), 0.9,
        ),
        Line(
            "R² there of the form of best of n, worst size", min(fit(BON, c["distance"], c["gold"]).r2 for c in by_distance),
            "reported", True,
        ),
        at_least("R² of the best-of-n form, mean over seeds, worst proxy", min(bon_r2), 0.9),
        at_least(
            "R² of the best-of-n form, smallest proxy, worst seed", min(s["proxies"][small]["form"]["r2"] for s in seeds), 0.9
        ),
        at_least(
            f"R² of the reinforcement form to {settings.far:g} nats, mean over seeds, worst size",
            min(over_seeds(each).mean for each in rl), 0.9,
        ),
        surely("β of best of n: falls, with each doubling of the width", over_seeds([-by_size(s, settings) for s in seeds])),
        surely("β of best of n: falls, with each doubling of the data", over_seeds([-by_data(s, settings) for s in seeds])),
        Line(
            f"promised too much at n = {last:g} by the form fitted to n ≤ {settings.fitted}, mean over seeds, furthest proxy",
            miss, "reported", math.isfinite(miss),
        ),
        at_most("proxy right: largest rise from one band of KL to the next", largest_rise(right), STEADY),
        Line("proxy right: change from the first band of KL to the last", right[-1] - right[0], "< 0", right[-1] < right[0]),
        at_most("minutes in all", sum(sum(s["seconds"].values()) for s in seeds) / 60, 60),
    ]  # fmt: skip


def rises_and_falls(
    who: str, curves: Sequence[dict[str, list[float]]], end: str, may_hold: bool = False
) -> list[Line]:  # fmt: skip
    """The two lines of one way to optimise: gold rises, and is lost again by the end unless it `may_hold`."""
    falls = told_of if may_hold else surely
    return [
        surely(f"{who}: most gold above the first policy's", over_seeds([rise(c, curves) for c in curves])),
        falls(f"{who}: gold lost again from the peak to {end}", over_seeds([fall(c, curves) for c in curves])),
    ]


def surely(name: str, found: Interval) -> Line:
    """A line met by a mean above 0 whose interval over seeds, where there is one, lies above 0 too."""
    low, _ = found.ends
    return Line(f"{name}, mean over seeds", found.mean, f"> 0 with its interval, from {low:.2g}", low > 0)


def told_of(name: str, found: Interval) -> Line:
    """A line that says what was found and asks for nothing."""
    low, high = found.ends
    return Line(f"{name}, mean over seeds", found.mean, f"reported, {low:.2g} to {high:.2g}", math.isfinite(found.mean))


def _peak(curves: Sequence[dict[str, list[float]]]) -> int:
    """Where the mean over seeds is highest: one place for all, so that no seed's own luck is counted as a peak."""
    mean = [sum(points) for points in zip(*(c["gold"] for c in curves), strict=True)]
    return max(range(len(mean)), key=lambda i: mean[i])


def mean_curve(curves: Sequence[dict[str, list[float]]]) -> dict[str, list[float]]:
    """The mean over seeds at every n, or at every look."""
    return {name: [fmean(column) for column in zip(*(c[name] for c in curves), strict=True)] for name in curves[0]}


def rise(curve: dict[str, list[float]], curves: Sequence[dict[str, list[float]]]) -> float:
    """Gold at the peak of the mean curve above that of the beginning."""
    return curve["gold"][_peak(curves)] - curve["gold"][0]


def fall(curve: dict[str, list[float]], curves: Sequence[dict[str, list[float]]]) -> float:
    """Gold at the peak of the mean curve above that of the end."""
    return curve["gold"][_peak(curves)] - curve["gold"][-1]


def by_size(seed: Seed, settings: Settings) -> float:
    """What a doubling of the width adds to β of best of n, by least squares, mean over the numbers of comparisons."""
    return fmean([
        log_linear(settings.sizes, [seed["proxies"][f"{width}-{n}"]["form"]["beta"] for width in settings.sizes]).slope
        for n in settings.counts
    ])  # fmt: skip


def by_data(seed: Seed, settings: Settings) -> float:
    """What a doubling of the comparisons adds to β of best of n, by least squares, mean over the sizes."""
    return fmean([
        log_linear(settings.counts, [seed["proxies"][f"{width}-{n}"]["form"]["beta"] for n in settings.counts]).slope
        for width in settings.sizes
    ])  # fmt: skip


def together(seeds: Sequence[Seed]) -> list[float]:
    """How often proxies are right by bands of KL, the mean of the seeds that came there, without bands that nobody came to."""
    bands = [[right for right in column if right is not None] for column in zip(*(s["right"] for s in seeds), strict=True)]
    return [fmean(band) for band in bands if band]


def largest_rise(values: Sequence[float]) -> float:
    """The most that a value exceeds the one before it; below 0 where they only fall, 0 where there is but one."""
    return max((b - a for a, b in itertools.pairwise(values)), default=0.0)
