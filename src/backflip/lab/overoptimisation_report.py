"""The report of `overoptimisation`, and its tables as Markdown."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from backflip.config import to_yaml
from backflip.lab.outcome import Line
from backflip.lab.overoptimisation_settings import BANDS, Settings
from backflip.lab.seeds import over_seeds
from backflip.lab.tables import signed, table
from backflip.lab.telling import band, bars, cell, mean_and_range, with_interval
from backflip.maths.overoptimisation import BON, RL, Form
from backflip.runs.report_data import Chart, Column, Figure, ReportData, SampleRow, Series

Seed = dict[str, Any]
DISTANCE, UNIT = "√KL, √nats", "standard deviations"
RULES = {
    "one member": "one member", "mean": "mean of the members", "worst": "worst case",
    "uncertainty": "mean less λ times the variance",
}  # fmt: skip
EDGES = [*(f"{low:g} to {high:g}" for low, high in itertools.pairwise(BANDS)), f"{BANDS[-1]:g} and more"]
"""The bands of KL, in words."""


def report(seeds: Sequence[Seed], lines: Sequence[Line], settings: Settings) -> ReportData:
    """Everything that was measured, as a page."""
    return ReportData(
        title="Gold while a proxy is optimised",
        summary=(
            f"Proxies of widths {_list(settings.sizes)} and {_list(settings.counts)} comparisons, optimised by best of n up to "
            f"{settings.samples:,} and by PPO ({len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}). "
            f"{sum(line.passed for line in lines)} of {len(lines)} bars met."
        ),
        figures=[*bars(lines), *_peaks(seeds, settings), *_penalties(seeds)],
        charts=[
            *_best_of_n(seeds, settings), *_forms_by_size(seeds, settings), *_reinforced(seeds, settings),
            *_penalty_charts(seeds, settings), _ensembles(seeds), *_right(seeds),
        ],
        samples=_texts(seeds, settings),
        settings=to_yaml(settings),
        notes=[
            f"Made by `backflip lab run overoptimisation --seeds {len(seeds)}`; tables.md beside this page holds the tables.",
            "Gold and every proxy stand in standard deviations of the first policy's samples, which have mean 0. Bands go from "
            "the lowest to the highest seed; where KL is the x, a point is the mean of the seeds at that look, KL included.",
            "Best of n is estimated without bias from all samples of a prompt (Nakano et al. 2021), KL = log n − (n − 1)/n. PPO "
            "has no KL penalty but where it says so; its KL is the mean of log π/ρ, nats a completion.",
            f"The form of best of n is d(α − βd), that of reinforcement d(α − β log d), d = √KL (Gao et al. 2022). Fitted to "
            f"n ≤ {settings.fitted}, the first is asked for the largest n; the second is "
            f"fitted up to {settings.far:g} nats.",
        ],
    )  # fmt: skip


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:,}" for value in values[:-1]) + f" and {values[-1]:,}" if len(values) > 1 else f"{values[0]:,}"


def _peaks(seeds: Sequence[Seed], settings: Settings) -> list[Figure]:
    found = []
    for width in settings.sizes:
        forms = [s["runs"][f"{width}, β = 0"]["form"] for s in seeds]
        value, spread = mean_and_range([f["peak"] for f in forms])
        where = mean_and_range([f["peak kl"] for f in forms], 1)[0]
        end, steps = mean_and_range([f["end"] for f in forms])[0], mean_and_range([f["peak step"] for f in forms], 0)[0]
        found.append(
            Figure(
                f"PPO, width {width}: most gold", value, spread, f"at step {steps} and {where} nats; {end} in the end"
            )
        )  # fmt: skip
    return found


def _penalties(seeds: Sequence[Seed]) -> list[Figure]:
    def one(beta: str) -> Figure:
        gold = [s["penalty"][beta]["gold"] for s in seeds]
        gap, _ = mean_and_range([s["penalty"][beta]["gap"] for s in seeds])
        value, spread = mean_and_range(gold)
        return Figure(f"Penalty β = {beta}: gold at equal KL", value, spread, f"more than without; proxy less gold {gap} more")

    return [one(beta) for beta in seeds[0]["penalty"]]


def _along(name: str, curves: Sequence[dict[str, list[float]]], x: str, y: str) -> Series:
    """The mean over seeds at each look, along the mean of their x."""
    xs = [sum(points) / len(points) for points in zip(*(c[x] for c in curves), strict=True)]
    return band(name, xs, [c[y] for c in curves])


def _form(name: str, form: Form, xs: Sequence[float], found: Sequence[dict[str, float]], suffix: str = "") -> Series:
    """The mean over seeds of the fitted curves."""
    rows = [form(xs, f[f"alpha{suffix}"], f[f"beta{suffix}"]).tolist() for f in found]
    return Series(name, xs, [sum(points) / len(points) for points in zip(*rows, strict=True)])


def _best_of_n(seeds: Sequence[Seed], settings: Settings) -> list[Chart]:
    charts = []
    for width in settings.sizes:
        lines = []
        for n in settings.counts:
            proxies = [s["proxies"][f"{width}-{n}"] for s in seeds]
            lines.append(_along(f"{n:,} comparisons", [p["curve"] for p in proxies], "distance", "gold"))
        charts.append(
            Chart(f"Gold, proxy of width {width}", DISTANCE, UNIT, lines, "By number of comparisons.", group="Best of n")
        )
    small = [s["proxies"][f"{settings.sizes[0]}-{settings.middle}"] for s in seeds]
    xs = small[0]["curve"]["distance"]
    fitted = [p["form"] for p in small]
    charts.append(
        Chart(
            f"Gold and proxy, width {settings.sizes[0]}, {settings.middle:,} comparisons", DISTANCE, UNIT,
            [
                _along("gold", [p["curve"] for p in small], "distance", "gold"),
                _along("proxy", [p["curve"] for p in small], "distance", "proxy"),
                _form("fitted form", BON, xs, fitted), _form(f"fitted to n ≤ {settings.fitted}", BON, xs, fitted, " near"),
            ],
            "What is optimised, what is meant, and the form of Gao et al.", group="Best of n",
        )
    )  # fmt: skip
    return charts


def _forms_by_size(seeds: Sequence[Seed], settings: Settings) -> list[Chart]:
    def chart(name: str, key: str) -> Chart:
        xs = [math.log2(n) for n in settings.counts]
        lines = [
            band(f"width {width}", xs, [[s["proxies"][f"{width}-{n}"]["form"][key] for n in settings.counts] for s in seeds])
            for width in settings.sizes
        ]
        return Chart(f"{name} of best of n", "log₂ comparisons", name, lines, "Fitted to the whole curve.", group="Coefficients")

    return [chart("α", "alpha"), chart("β", "beta")]


def _reinforced(seeds: Sequence[Seed], settings: Settings) -> list[Chart]:
    charts = []
    for width in settings.sizes:
        runs = [s["runs"][f"{width}, β = 0"] for s in seeds]
        curves = [r["curve"] for r in runs]
        gold = _along("gold", curves, "distance", "gold")
        near = [x for x in gold.xs if x * x <= settings.far]
        lines = [gold, _along("proxy", curves, "distance", "proxy"), _form("fitted form", RL, near, [r["form"] for r in runs])]
        charts.append(Chart(f"PPO, proxy of width {width}", DISTANCE, UNIT, lines, "Without a KL penalty.", group="PPO"))
    lines = [
        _along(f"width {width}", [s["runs"][f"{width}, β = 0"]["curve"] for s in seeds], "step", "kl") for width in settings.sizes
    ]
    charts.append(Chart("How far it goes", "step", "nats a completion", lines, "KL to the first policy.", group="PPO"))
    return charts


def _penalty_charts(seeds: Sequence[Seed], settings: Settings) -> list[Chart]:
    betas = (0.0, *settings.betas)

    def lines(x: str, y: str) -> list[Series]:
        return [
            _along(f"β = {beta:g}", [s["runs"][f"{settings.middle_size}, β = {beta:g}"]["curve"] for s in seeds], x, y)
            for beta in betas
        ]

    group = f"A KL penalty, proxy of width {settings.middle_size}"
    return [
        Chart(
            "Gold against distance",
            DISTANCE,
            UNIT,
            lines("distance", "gold"),
            "Lines that lie on one another: it only stops early.",
            group,
        ),
        Chart(
            "Proxy against distance",
            DISTANCE,
            UNIT,
            lines("distance", "proxy"),
            "What is optimised, at the same distances.",
            group,
        ),
        Chart("Gold by step", "step", UNIT, lines("step", "gold"), "", group),
    ]


def _ensembles(seeds: Sequence[Seed]) -> Chart:
    xs = seeds[0]["proxies"][next(iter(seeds[0]["proxies"]))]["curve"]["distance"]
    lines = [band(name, xs, [s["ensemble"][rule] for s in seeds]) for rule, name in RULES.items()]
    return Chart(
        "Gold of the best of n by an ensemble", DISTANCE, UNIT, lines, "Members differ in their heads and the order of the data.",
        group="Ensembles",
    )  # fmt: skip


def _right(seeds: Sequence[Seed]) -> list[Chart]:
    places = [i for i in range(len(EDGES)) if all(s["right"][i] is not None for s in seeds)]
    if not places:
        return []
    line = band("all sizes", [float(i) for i in places], [[s["right"][i] for i in places] for s in seeds])
    bands = ", ".join(f"{i}: {edge}" for i, edge in enumerate(EDGES))
    return [
        Chart(
            "How often a proxy is right", "band of KL, nats", "share of pairs", [line],
            f"Pairs of texts of one look for one prompt, against gold. Bands: {bands}.", group="Accuracy by distance",
        )
    ]  # fmt: skip


def _texts(seeds: Sequence[Seed], settings: Settings) -> list[SampleRow]:
    rows = []
    for width in settings.sizes:
        for found in seeds[0]["runs"][f"{width}, β = 0"]["texts"]:
            scores = {name: round(found[name], 2) for name in ("proxy", "gold", "kl")}
            rows.append(SampleRow(found["prompt"], [Column(f"width {width}, last step", found["text"] or "(empty)", scores)]))
    return rows


def tables(seeds: Sequence[Seed], settings: Settings) -> str:
    """The tables of the page in the documentation."""
    return "\n".join([
        _proxy_table(seeds, settings), _run_table(seeds), _penalty_table(seeds), _ensemble_table(seeds), _right_table(seeds),
        _text_table(seeds, settings),
    ])  # fmt: skip


def _proxy_table(seeds: Sequence[Seed], settings: Settings) -> str:
    def row(name: str) -> list[str]:
        proxies = [s["proxies"][name] for s in seeds]
        curve = [fmean(points) for points in zip(*(p["curve"]["gold"] for p in proxies), strict=True)]
        peak = max(range(len(curve)), key=lambda i: curve[i])
        form = {key: fmean([p["form"][key] for p in proxies]) for key in proxies[0]["form"]}
        return [
            *name.split("-"), f"{100 * fmean([p['accuracy'] for p in proxies]):.0f} %", signed(curve[peak], 2),
            f"{proxies[0]['curve']['n'][peak]:g}", signed(curve[-1], 2), signed(form["alpha"], 2), signed(form["beta"], 3),
            f"{form['r2']:.3f}", signed(form["miss"], 2),
        ]  # fmt: skip

    head = [
        "width", "comparisons", "right", "most gold", "at n", "gold at the largest n",
        "α", "β", "R²", f"promised too much, fitted to n ≤ {settings.fitted}",
    ]  # fmt: skip
    return table(head, [row(name) for name in seeds[0]["proxies"]])


def _run_table(seeds: Sequence[Seed]) -> str:
    def row(name: str) -> list[str]:
        forms = [s["runs"][name]["form"] for s in seeds]
        digits = {"peak": 2, "peak step": 0, "peak kl": 1, "end": 2, "end kl": 1, "alpha": 2, "beta": 2, "r2": 2, "r2 whole": 2}
        return [name, *(cell([f[key] for f in forms], places) for key, places in digits.items())]

    head = [
        "PPO against width",
        "most gold",
        "at step",
        "KL there",
        "gold in the end",
        "KL there",
        "α",
        "β",
        "R²",
        "R² on all looks",
    ]
    return table(head, [row(name) for name in seeds[0]["runs"]])


def _penalty_table(seeds: Sequence[Seed]) -> str:
    def row(beta: str) -> list[str]:
        rows = [s["penalty"][beta] for s in seeds]
        gold, gap = (with_interval(over_seeds([r[name] for r in rows])) for name in ("gold", "gap"))
        return [
            beta, gold, gap,
            f"{fmean([r['end kl'] for r in rows]):.1f}", signed(fmean([r["end"] for r in rows]), 2),
            signed(fmean([r["stopped early"] for r in rows]), 2),
        ]  # fmt: skip

    head = [
        "β", "gold at equal KL, less that without a penalty", "proxy less gold, likewise", "KL in the end", "gold in the end",
        "gold of the run without a penalty, stopped at that KL",
    ]  # fmt: skip
    return table(head, [row(beta) for beta in seeds[0]["penalty"]])


def _ensemble_table(seeds: Sequence[Seed]) -> str:
    def row(rule: str) -> list[str]:
        curves = [s["ensemble"][rule] for s in seeds]
        mean = [fmean(points) for points in zip(*curves, strict=True)]
        over = over_seeds([c[-1] - s["ensemble"]["one member"][-1] for c, s in zip(curves, seeds, strict=True)])
        return [RULES[rule], signed(max(mean), 2), signed(mean[-1], 2), with_interval(over)]

    return table(["best of n by", "most gold", "gold at the largest n", "above one member"], [row(rule) for rule in RULES])


def _right_table(seeds: Sequence[Seed]) -> str:
    rows = []
    for i, edge in enumerate(EDGES):
        values = [100 * s["right"][i] for s in seeds if s["right"][i] is not None]
        if values:
            mean, spread = mean_and_range(values, 0)
            rows.append([edge, f"{mean} %" + (f" ({spread})" if spread else ""), str(len(values))])
    return table(["KL, nats", "pairs that proxies have right", "seeds"], rows)


def _text_table(seeds: Sequence[Seed], settings: Settings) -> str:
    rows = [
        [str(width), str(s["seed"]), signed(t["proxy"], 1), signed(t["gold"], 1), f"{t['kl']:.0f}", _in_a_cell(t["text"])]
        for width in settings.sizes
        for s in seeds
        for t in s["runs"][f"{width}, β = 0"]["texts"][:2]
    ]
    return table(["width", "seed", "proxy", "gold", "KL", "what the last policy's proxy likes best"], rows)


def _in_a_cell(text: str) -> str:
    return text.strip().replace("|", "\\|").replace("\n", " ") or "(empty)"
