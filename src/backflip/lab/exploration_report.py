"""The report of `exploration`, and its tables as Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from backflip.config import to_yaml
from backflip.lab.exploration_settings import NAMES, Settings
from backflip.lab.outcome import Line
from backflip.lab.tables import signed, table
from backflip.lab.telling import band, bars
from backflip.runs.report_data import Chart, Figure, ReportData, Series

Seed = dict[str, Any]
SHOWN = (1, 4, 16, 64)
"""The k that the tables show, as far as there are so many tries."""


def report(seeds: Sequence[Seed], lines: Sequence[Line], settings: Settings) -> ReportData:
    """Everything that was measured, as a page."""
    most = seeds[0]["before"]["curve"]["x"][-1]
    before, after = ([mean([_curve(s, name)["value"][end] for s in seeds]) for end in (0, -1)] for name in ("before", "plain"))
    crossed = sum(s["arms"]["plain"]["crossing"] is not None for s in seeds)
    return ReportData(
        title="Exploration under GRPO",
        summary=(
            f"GRPO alone takes pass@1 from {before[0]:.0%} to {after[0]:.0%} and pass@{most} from {before[1]:.0%} to "
            f"{after[1]:.0%}; in {crossed} of {len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'} its curve falls below the "
            "base model's. "
            f"{sum(line.passed for line in lines)} of {len(lines)} bars met."
        ),
        figures=[*bars(lines), *(_figure(seeds, name) for name in NAMES)],
        charts=[*_pass_charts(seeds), *_training_charts(seeds)],
        settings=to_yaml(settings),
        notes=[
            f"Made by `backflip lab run exploration --seeds {len(seeds)}`. pass@k is the unbiased estimate of Chen et al. 2021 "
            f"from {settings.tries} completions of each of {settings.problems} test problems, all at temperature 1.",
            "Every run starts from the same base model, meets the same problems and differs from GRPO alone in one thing.",
            "The entropy in the curves is that of what a run samples from, so that of the hotter one is at its own temperature; "
            "before and after, every model's is at temperature 1.",
        ],
    )


def mean(values: Sequence[float]) -> float:
    """Their mean."""
    return sum(values) / len(values)


def _curve(s: Seed, name: str) -> Any:
    return s["before"]["curve"] if name == "before" else s["arms"][name]["curve"]


def _figure(seeds: Sequence[Seed], name: str) -> Figure:
    arms = [s["arms"][name] for s in seeds]
    most = arms[0]["curve"]["x"][-1]
    crossings = ", ".join("nowhere" if a["crossing"] is None else f"k = {a['crossing']:.0f}" for a in arms)
    one, many = (signed(100 * mean([a["gain"]["value"][end] for a in arms])) for end in (0, -1))
    return Figure(
        f"{NAMES[name][:1].upper()}{NAMES[name][1:]}",
        f"{one} and {many} points",
        note=f"of pass@1 and of pass@{most}; below the base model from: {crossings}",
    )


def _pass_charts(seeds: Sequence[Seed]) -> list[Chart]:
    xs = [math.log2(k) for k in seeds[0]["before"]["curve"]["x"]]

    def line(name: str, title: str) -> Series:
        return band(title, xs, [_curve(s, name)["value"] for s in seeds])

    charts = [
        Chart(
            "Before and after", "log₂ k", "pass@k", [line("before", "base model"), *(line(name, NAMES[name]) for name in NAMES)],
            "Mean over seeds, from the lowest to the highest.", group="pass@k",
        )
    ]  # fmt: skip
    steps = list(seeds[0]["between"])
    charts.append(
        Chart(
            "On the way", "log₂ k", "pass@k after less before",
            [
                *(band(f"step {step}", xs, [s["between"][step]["gain"]["value"] for s in seeds]) for step in steps[:5]),
                band("at the end", xs, [s["arms"]["plain"]["gain"]["value"] for s in seeds]),
            ],
            "GRPO alone at its checkpoints; mean over seeds, from the lowest to the highest.", group="pass@k",
        )
    )  # fmt: skip
    for name, title in NAMES.items():
        gains = [s["arms"][name]["gain"] for s in seeds]
        charts.append(
            Chart(
                f"Gained by {title}", "log₂ k", "pass@k after less before",
                [
                    Series(f"seed {s['seed']}", xs, g["value"], g["low"], g["high"])
                    for s, g in zip(seeds, gains, strict=True)
                ],
                "Over the same problems, with its 95 % interval; below 0 the base model finds more.", group="pass@k",
            )
        )  # fmt: skip
    return charts


def _training_charts(seeds: Sequence[Seed]) -> list[Chart]:
    told = [
        ("pass@1", "Accuracy", "share right", "Of the step's own samples, on problems that come only once."),
        ("entropy", "Entropy", "nats a token", "Of the distribution that is sampled from."),
        ("kl", "KL to the base model", "nats a completion", "How far each run went."),
        ("clipped", "Clipped", "share of tokens", "Whose ratio left its bounds, so that they taught nothing."),
    ]
    charts = []
    for key, title, unit, words in told:
        lines = []
        for name in NAMES:
            runs = [s["arms"][name]["training"] for s in seeds]
            lines.append(band(NAMES[name], runs[0]["step"], [run[key] for run in runs]))
        charts.append(Chart(title, "step", unit, lines, f"{words} Mean over seeds.", group="During the runs"))
    return charts


def tables(seeds: Sequence[Seed]) -> str:
    """The tables of the page in the documentation."""
    return "\n".join([_pass_table(seeds), _gain_table(seeds), _measures_table(seeds)])


def _places(seeds: Sequence[Seed]) -> list[int]:
    xs = seeds[0]["before"]["curve"]["x"]
    return [xs.index(k) for k in SHOWN if k in xs]


def _pass_table(seeds: Sequence[Seed]) -> str:
    places = _places(seeds)

    def row(name: str, title: str) -> list[str]:
        found = [s["before"] if name == "before" else s["arms"][name] for s in seeds]
        passed = [", ".join(f"{100 * f['curve']['value'][i]:.1f}" for f in found) for i in places]
        return [title, *passed, ", ".join(f"{f['entropy']:.3f}" for f in found), f"{mean([f['length'] for f in found]):.1f}"]

    ks = [seeds[0]["before"]["curve"]["x"][i] for i in places]
    rows = [row("before", "base model"), *(row(name, title) for name, title in NAMES.items())]
    return table(["", *(f"pass@{k}, %, by seed" for k in ks), "entropy, nats a token, by seed", "tokens"], rows)


def _gain_table(seeds: Sequence[Seed]) -> str:
    def row(title: str, seed: int, found: dict[str, Any], entropies: Sequence[float]) -> list[str]:
        cells = []
        for i in (0, -1):
            value, low, high = (signed(100 * found["gain"][part][i], 1) for part in ("value", "low", "high"))
            cells.append(f"{value} ({low} to {high})")
        crossing = "nowhere" if found["crossing"] is None else f"k = {found['crossing']:.1f}"
        changed = " → ".join(f"{entropies[i]:.3f}" for i in (0, len(entropies) // 2, -1)) if entropies else ""
        return [title, str(seed), *cells, crossing, "yes" if found["lost"] else "no", changed]

    rows = [row(f"GRPO alone, step {step}", s["seed"], s["between"][step], ()) for step in seeds[0]["between"] for s in seeds]
    for name, title in NAMES.items():
        rows += [row(title, s["seed"], s["arms"][name], s["arms"][name]["training"]["entropy"]) for s in seeds]
    most = seeds[0]["before"]["curve"]["x"][-1]
    head = ["run", "seed", "pass@1 gained, points", f"pass@{most} gained, points", "falls below the base model's from",
            "a loss beyond chance", "entropy: first step → middle → last"]  # fmt: skip
    return table(head, rows)


def _measures_table(seeds: Sequence[Seed]) -> str:
    places = _places(seeds)

    def cell(s: Seed, name: str, i: int) -> str:
        value, low, high = (signed(100 * s["arms"][name]["over plain"][part][i], 1) for part in ("value", "low", "high"))
        return f"{value} ({low} to {high})"

    rows = [
        [title, str(s["seed"]), *(cell(s, name, i) for i in places)]
        for name, title in NAMES.items()
        if name != "plain"
        for s in seeds
    ]
    ks = [seeds[0]["before"]["curve"]["x"][i] for i in places]
    return table(["over GRPO alone, points", "seed", *(f"pass@{k}" for k in ks)], rows)
