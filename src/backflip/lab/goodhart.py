"""When does optimising a proxy harm what is meant? Best of n under five kinds of noise, by enumeration.

Gold is N(0, 1), the proxy is gold plus noise, and the best of n by proxy is kept. With Gaussian noise that is better the larger n
is, and nothing is ever over-optimised; with an exponential tail it levels off; with a heavy tail gold rises and comes back down;
and where one sample in a thousand is a hack, all is well until it is found. Gao's forms are fitted to the beginning of each curve
and asked for its end: what they cannot see, they cannot tell. Every figure is enumerated; samples only check it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backflip.lab.goodhart_report import report, tables
from backflip.lab.goodhart_settings import Settings
from backflip.lab.outcome import Line, at_least, at_most
from backflip.lab.seeds import told
from backflip.seeds import Seeds

__all__ = ["QUICK", "TITLE", "Settings", "judge", "run"]

TITLE = "Goodhart's law by enumeration: five kinds of noise in a proxy, and what best of n comes to under each."

QUICK = dataclasses.replace(Settings(), seeds=2, samples=20_000, most=3000, cells=1500, points=20)
"""Everything once, in a second or two; samples are too few for the bars."""

Worlds = Mapping[str, Mapping[str, Any]]


def run(settings: Settings, folder: Path, quiet: bool) -> bool:
    """Enumerate every world, sample it with every seed or what is missing of them, and tell it; whether all bars were met."""
    from backflip.lab import goodhart_stages as stages

    worlds = stages.enumerated(settings)
    seeds = [
        {"seed": seed, "sampled": stages.sampled(folder / f"seed{seed}", settings, Seeds(seed))} for seed in range(settings.seeds)
    ]
    errors = stages.errors(worlds, seeds)
    lines = judge(worlds, seeds, errors, stages.EARLIER)
    return told(
        settings, folder, seeds, lines,
        lambda found, bars, chosen: report(worlds, found, errors, bars, chosen),
        more={"worlds": worlds, "errors": errors}, tables=tables(worlds, errors, stages.EARLIER),
    )  # fmt: skip


def judge(
    worlds: Worlds, seeds: Sequence[Mapping[str, Any]], errors: Mapping[str, Mapping[str, float]],
    earlier: Mapping[str, Mapping[int, float]],
) -> list[Line]:  # fmt: skip
    """The bars: the shapes, the digits that a sample of 2,000,000 could know, and the samples."""
    gauss, laplace, three, two, hack = (worlds[name] for name in worlds)
    rises = min(b - a for a, b in zip(gauss["gold"], gauss["gold"][1:], strict=False))
    flat = [gold for n, gold in zip(laplace["n"], laplace["gold"], strict=True) if n >= 64]
    last = {name: world["gold"][-1] for name, world in worlds.items()}
    return [
        Line("Gaussian: least gain of gold from one n to the next", rises, "> 0", rises > 0),
        equal("Gaussian: β of the best-of-n form", gauss["forms"]["best of n"]["beta"], -0.02),
        at_most("Laplace: gold moves by, from n = 64 on", max(flat) - min(flat), 0.07),
        equal("t(3): gold at the peak", three["peak"], 0.88),
        at_least("t(3): gold lost again, of what was gained", 1 - last["Student t(3)"] / three["peak"], 0.5),
        equal("t(2): gold at the peak", two["peak"], 0.70),
        at_least("t(2): gold lost again, of what was gained", 1 - last["Student t(2)"] / two["peak"], 0.9),
        Line("rare hack: gold at the largest n", last["rare hack"], "< −2", last["rare hack"] < -2),
        Line("rare hack: least miss of a form fitted before the cliff", least_miss(hack), "> 2", least_miss(hack) > 2),
        at_most("figures from an earlier sample, largest distance in standard errors", furthest(worlds, errors, earlier), 3),
        at_most("samples against enumeration, largest distance of their mean in standard errors", off(worlds, seeds, errors), 4),
    ]  # fmt: skip


def equal(name: str, value: float, printed: float) -> Line:
    """A line met by what rounds to a figure of two decimals."""
    return Line(name, value, f"= {printed:.2f}".replace("-", "−"), math.isclose(round(value, 2), printed, abs_tol=1e-9))


def least_miss(world: Mapping[str, Any]) -> float:
    """By how much both forms promise more gold at the largest n than there is."""
    return float(min(form["miss"] for form in world["forms"].values()))


def furthest(worlds: Worlds, errors: Mapping[str, Mapping[str, float]], earlier: Mapping[str, Mapping[int, float]]) -> float:
    """The largest distance of the earlier figures from enumeration, in standard errors of one sample, their rounding allowed."""
    away = [0.0]
    for name, values in earlier.items():
        for n, value in values.items():
            exact = worlds[name]["at"].get(str(n))
            if exact is not None:
                away.append(max(0.0, abs(value - exact) - 0.005) / errors[name][str(n)])
    return max(away)


def off(worlds: Worlds, seeds: Sequence[Mapping[str, Any]], errors: Mapping[str, Mapping[str, float]]) -> float:
    """The largest distance of the mean over seeds from enumeration, in standard errors of that mean."""
    away = [
        abs(sum(s["sampled"][name][n] for s in seeds) / len(seeds) - exact) / (errors[name][n] / math.sqrt(len(seeds)))
        for name, world in worlds.items()
        for n, exact in world["at"].items()
    ]
    return float(max(away))
