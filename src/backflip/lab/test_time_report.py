"""The report of `test-time`, and its tables as Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from backflip.config import to_yaml
from backflip.lab.outcome import Line
from backflip.lab.tables import signed, table
from backflip.lab.telling import band, bars
from backflip.lab.test_time_settings import Settings
from backflip.runs.report_data import Chart, Figure, ReportData, Series

Seed = dict[str, Any]
CHOOSERS = {
    "checker": "exact checker (pass@k)",
    "verifier": "learned verifier",
    "longest": "longest thought",
    "majority": "majority vote",
    "weighed": "vote weighed by the verifier",
}


def report(seeds: Sequence[Seed], lines: Sequence[Line], settings: Settings) -> ReportData:
    """Everything that was measured, as a page."""
    curves = {name: [_mean([s["tries"][name]["value"][end] for s in seeds]) for end in (0, -1)] for name in CHOOSERS}
    most = seeds[0]["tries"]["checker"]["x"][-1]
    return ReportData(
        title="More tries and longer thinking",
        summary=(
            f"One try is right in {curves['checker'][0]:.0%}; of {most}, a learned verifier's favourite in "
            f"{curves['verifier'][1]:.0%}, the commonest answer in {curves['majority'][1]:.0%}, and any of them in "
            f"{curves['checker'][1]:.0%} ({len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}). "
            f"{sum(line.passed for line in lines)} of {len(lines)} bars met."
        ),
        figures=[*bars(lines), *_fits(seeds)],
        charts=[*_by_tries(seeds), *_by_thinking(seeds), _by_allowance(seeds)],
        settings=to_yaml(settings),
        notes=[
            f"Made by `backflip lab run test-time --seeds {len(seeds)}`. {settings.problems} test problems that stand in no "
            f"corpus, {settings.tries} completions of each at temperature {settings.sampling.temperature:g}.",
            "pass@k is the unbiased estimate of Chen et al. 2021, the best of k by the verifier that of Nakano et al. 2021, the "
            f"vote of k the mean over {settings.draws} orders of the tries. With an exact checker the best of k is pass@k.",
            "The verifier is a reward model whose body starts as the base model, trained on pairs of a right and a wrong "
            "completion of the base model's own.",
        ],
    )  # fmt: skip


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _fits(seeds: Sequence[Seed]) -> list[Figure]:
    found = []
    for key, name in CHOOSERS.items():
        fits = [s["tries"][key]["fit"] for s in seeds]
        found.append(
            Figure(
                f"A doubling of the tries, {name}", f"{signed(100 * _mean([f['slope'] for f in fits]), 1)} points",
                note="R² " + ", ".join(f"{f['r2']:.3f}" for f in fits),
            )
        )  # fmt: skip
    equal = [s["told apart at equal length"] for s in seeds if s["told apart at equal length"] is not None]
    if equal:
        found.append(
            Figure(
                "Verifier: right above wrong of equal length", ", ".join(f"{value:.2f}" for value in equal),
                note="of the same problem, thoughts equally long; 0.5 is a coin; one figure a seed",
            )
        )  # fmt: skip
    gains = [s["gain of thinking"] for s in seeds if s["gain of thinking"] is not None]
    if gains:
        found.append(
            Figure(
                "Longer thoughts over shorter ones", ", ".join(signed(100 * g["value"]) for g in gains) + " points",
                note="of the same problem, by its median length; one figure a seed",
            )
        )  # fmt: skip
    return found


def _by_tries(seeds: Sequence[Seed]) -> list[Chart]:
    charts = []
    xs = [math.log2(k) for k in seeds[0]["tries"]["checker"]["x"]]
    charts.append(
        Chart(
            "Accuracy against tries", "log₂ k", "share right",
            [band(name, xs, [s["tries"][key]["value"] for s in seeds]) for key, name in CHOOSERS.items()],
            "Who picks among k completions; mean over seeds, from the lowest to the highest.", group="Tries",
        )
    )  # fmt: skip
    for key, name in CHOOSERS.items():
        curves = [s["tries"][key] for s in seeds]
        charts.append(
            Chart(
                name[:1].upper() + name[1:], "log₂ k", "share right",
                [Series(f"seed {s['seed']}", xs, c["value"], c["low"], c["high"]) for s, c in zip(seeds, curves, strict=True)],
                "One line a seed with its 95 % interval over problems.", group="Tries",
            )
        )  # fmt: skip
    return charts


def _by_thinking(seeds: Sequence[Seed]) -> list[Chart]:
    charts = []
    for s in seeds:
        rows = s["thinking"]["rows"]
        series = []
        for digits in sorted({row["digits"] for row in rows}):
            own = [row for row in rows if row["digits"] == digits]
            series.append(Series(f"{digits} digits", [r["tokens"] for r in own], [r["value"] for r in own]))
        if series:
            charts.append(
                Chart(
                    f"Accuracy by length of thinking, seed {s['seed']}", "tokens of thought", "share right", series,
                    "One try, by what stands between its think tags; lengths with at least 30 completions.", group="Thinking",
                )
            )  # fmt: skip
    return charts


def _by_allowance(seeds: Sequence[Seed]) -> Chart:
    return Chart(
        "Accuracy by length allowed", "tokens", "share right",
        [
            Series(f"seed {s['seed']}", c["x"], c["value"], c["low"], c["high"])
            for s in seeds
            for c in [s["allowance"]]
        ],
        "One try that counts only when it is no longer, with its 95 % interval.", group="Thinking",
    )  # fmt: skip


def tables(seeds: Sequence[Seed]) -> str:
    """The tables of the page in the documentation."""
    return "\n".join([_tries_table(seeds), _fit_table(seeds), _verifier_table(seeds), _thinking_table(seeds)])


def _tries_table(seeds: Sequence[Seed]) -> str:
    ks = seeds[0]["tries"]["checker"]["x"]
    rows = []
    for key, name in CHOOSERS.items():
        for s in seeds:
            c = s["tries"][key]
            values = [f"{100 * v:.1f}" for v in c["value"][:-1]]
            last = f"{100 * c['value'][-1]:.1f} ({100 * c['low'][-1]:.0f} to {100 * c['high'][-1]:.0f})"
            rows.append([name, str(s["seed"]), *values, last])
    return table(["right, %", "seed", *(f"k = {k}" for k in ks)], rows)


def _fit_table(seeds: Sequence[Seed]) -> str:
    fits = {name: [s["tries"][key]["fit"] for s in seeds] for key, name in CHOOSERS.items()}
    fits["tokens allowed"] = [s["allowance"]["fit"] for s in seeds]
    fits["tokens of thought"] = [s["thinking"]["fit"] for s in seeds if s["thinking"]["fit"] is not None]
    rows = [
        [name, ", ".join(signed(100 * f["slope"], 1) for f in found), ", ".join(f"{f['r2']:.3f}" for f in found)]
        for name, found in fits.items()
    ]
    return table(["log-linear fit", "points a doubling, by seed", "R²"], rows)


def _verifier_table(seeds: Sequence[Seed]) -> str:
    rows = []
    for s in seeds:
        equal = s["told apart at equal length"]
        told = [s["verifier"]["accuracy"], s["told apart"], equal]
        rows.append([str(s["seed"]), str(s["pairs"]), *("" if value is None else f"{value:.3f}" for value in told)])
    return table(["seed", "pairs learned from", "right on held-out pairs", "on test tries", "of equal length"], rows)


def _thinking_table(seeds: Sequence[Seed]) -> str:
    rows = [
        [str(s["seed"]), str(row["digits"]), str(row["tokens"]), str(row["n"]), f"{100 * row['value']:.1f}"]
        for s in seeds
        for row in s["thinking"]["rows"]
    ]
    return table(["seed", "digits", "tokens of thought", "completions", "right, %"], rows)
