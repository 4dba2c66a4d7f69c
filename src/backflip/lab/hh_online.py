"""What Bai et al. 2022 found of preference models and of asking people again, in the world of reviews.

Three questions. Is the score of the preference model linear in √KL, with one slope for policies of all sizes (section 4.3)?
Does a policy that is optimised against one of two preference models, fitted to disjoint halves of the comparisons, leave the
other behind at high KL, and a larger model less so (section 4.2)? And is it better to ask in three rounds of 300 comparisons
than 900 at once (section 4.5)? The last policies of both meet before people whom neither of them asked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from backflip.lab.clock import Clock
from backflip.lab.hh_online_figures import Gap, curve, gaps, law, slopes_apart
from backflip.lab.hh_online_report import report, tables
from backflip.lab.hh_online_settings import Settings
from backflip.lab.many_rounds import QUICK as ASKING
from backflip.lab.many_rounds_settings import ONLINE, STATIC
from backflip.lab.outcome import Line, at_least, at_most
from backflip.lab.seeds import every_seed, over_seeds, told
from backflip.seeds import Seeds
from backflip.settings import Tiny

__all__ = ["QUICK", "TITLE", "Settings", "judge", "run"]

TITLE = "The √KL law, preference models of two halves that part, and asking three times against once."

_FULL = Settings()
QUICK = dataclasses.replace(
    _FULL, seeds=1, documents=100, comparisons=16, sizes=(16, 32), models=(8, 16),
    watch=dataclasses.replace(_FULL.watch, every=1, prompts=8),
    asking=dataclasses.replace(_FULL.asking, prompts=40, loop=ASKING.loop),
    tiny=Tiny(vocabulary=320, hidden_size=32, layers=1, heads=2, context=96),
    reward=dataclasses.replace(_FULL.reward, batch_size=8, normalization_samples=8),
    ppo=dataclasses.replace(
        _FULL.ppo, steps=4, batch_size=8, sampling=dataclasses.replace(_FULL.ppo.sampling, max_new_tokens=8),
        optim=dataclasses.replace(_FULL.ppo.optim, learning_rate=1e-2),  # so that four steps lead somewhere
    ),
)  # fmt: skip
"""Everything once, in seconds; it shows that the parts work, and nothing else."""


def run(settings: Settings, folder: Path, quiet: bool) -> bool:
    """Run every seed, or what is missing of it, and tell it; whether all bars were met."""
    seeds = every_seed(settings, folder, quiet, one)
    return told(settings, folder, seeds, judge(seeds, settings), report, tables=tables(seeds))


def one(seed: int, settings: Settings, folder: Path, quiet: bool) -> dict[str, Any]:
    """The figures of one seed: every run look by look, the lines fitted to them, the gaps, and how the two arms compare."""
    from backflip.lab import hh_online_stages as stages
    from backflip.lab.guard_stages import reward_of, watched_run
    from backflip.lab.many_rounds_stages import gone_round
    from backflip.lab.reviews_base import compared, demonstrated

    seeds, clock, s = Seeds(seed), Clock(folder / "clock.json"), settings
    with clock.running("policies"):
        policies = {w: demonstrated(folder / f"policy{w}", s, seeds, quiet, s.policy(w)) for w in s.sizes}
        largest = policies[s.sizes[-1]]
        pairs = compared(folder / "comparisons.json", largest, 2 * s.comparisons, s.noise, s.ppo.sampling, seeds)
    halves = {"train": pairs[: s.comparisons], "test": pairs[s.comparisons :]}
    models: dict[tuple[int, str], Path] = {}
    accuracy = {}
    with clock.running("preference models"):
        for w in s.models:
            body = demonstrated(folder / f"body{w}", s, seeds.child("body", w), quiet, s.model(w))
            for half, rows in halves.items():
                models[w, half], right = reward_of(
                    s.reward, s.ppo.sampling, folder / f"model{w}-{half}", body, rows, seeds.child(half, w), quiet
                )
                accuracy[f"{w} {half}"] = right
    widest = s.models[-1]
    runs: dict[str, dict[str, list[float]]] = {}
    for w, m in [*((w, widest) for w in s.sizes), *((s.sizes[-1], m) for m in s.models[:-1])]:
        with clock.running("against one model"):
            seen = watched_run(
                folder / f"run{w}-{m}", policies[w], models[m, "train"], {"test": models[m, "test"]}, s.ppo, s.watch,
                seeds.child("run"), quiet,
            )  # fmt: skip
        runs[f"{w} against {m}"] = curve(seen)
    laws = {str(w): law(*(runs[f"{w} against {widest}"][name] for name in ("root kl", "train")))._asdict() for w in s.sizes}
    apart = gaps([runs[f"{s.sizes[-1]} against {m}"] for m in s.models])
    for arm in (ONLINE, STATIC):
        with clock.running(arm):
            gone_round(folder / f"{arm}.json", s.asking.arms()[arm], largest, s.asking, seeds, quiet)
    with clock.running("meeting"):
        met = stages.met(folder / "met.json", folder / ONLINE, folder / STATIC, s.asking, seeds)
    return {
        "seed": seed, "accuracy": accuracy, "runs": runs, "laws": laws,
        "gaps": {str(m): gap._asdict() for m, gap in zip(s.models, apart, strict=True)}, "met": met, "seconds": clock.seconds,
    }  # fmt: skip


def judge(seeds: Sequence[dict[str, Any]], settings: Settings) -> list[Line]:
    """The bars; where a figure has an interval over seeds, its lower end must be above the bar."""
    laws = [list(s["laws"].values()) for s in seeds]
    small, large = ([Gap(**s["gaps"][str(m)]) for s in seeds] for m in (settings.models[0], settings.models[-1]))
    won, _ = over_seeds([s["met"]["wins"]["mean"] for s in seeds]).ends
    gold, _ = over_seeds([s["met"]["gold"]["online"] - s["met"]["gold"]["static"] for s in seeds]).ends
    straight = fmean([min(x["r2"] for x in one) for one in laws])
    spread = fmean([slopes_apart([x["slope"] for x in one]) for one in laws])
    far = fmean([_z(g) for g in small])
    nearer, _ = over_seeds([a.mean - b.mean for a, b in zip(small, large, strict=True)]).ends
    surer = fmean([s["met"]["high"]["static"] - s["met"]["high"]["online"] for s in seeds])
    return [
        at_least("R² of score = a + b·√KL up to the bend, least size, mean", straight, 0.95),
        at_most("slopes of the sizes apart, share, mean", spread, 0.2),
        Line("gap of train and test model, smaller models, in standard errors, mean", far, "> 2", far > 2),
        Line("gap of the smaller models less that of the larger, low end over seeds", nearer, "> 0", nearer > 0),
        Line("share of meetings that asking three times wins, low end over seeds", won, "> 0.5", won > 0.5),
        at_least("Elo points of asking three times over asking once, mean", fmean([s["met"]["elo"] for s in seeds]), 50),
        Line("gold of asking three times less that of asking once, low end over seeds", gold, "> 0", gold > 0),
        Line("calibration error at high scores, asking once less three times, mean", surer, "> 0", surer > 0),
        at_most("minutes a seed, slowest", max(sum(s["seconds"].values()) for s in seeds) / 60, 8),
    ]  # fmt: skip


def _z(gap: Gap) -> float:
    return gap.mean / gap.error if gap.error > 0 else 0.0
