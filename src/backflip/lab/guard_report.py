"""The report of `guard`, and its table as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backflip.config import to_yaml
from backflip.lab.guard_figures import counts, raised, share_kept
from backflip.lab.guard_settings import LEFT_ALONE, Settings
from backflip.lab.outcome import Line
from backflip.lab.tables import table
from backflip.lab.telling import band, bars
from backflip.runs.report_data import Chart, Figure, ReportData

Seed = dict[str, Any]


def report(seeds: Sequence[Seed], lines: Sequence[Line], settings: Settings) -> ReportData:
    """Everything that was measured, as a page."""
    return ReportData(
        title="Who stops a run before its reward is gamed?",
        summary=(
            f"{len(settings.sizes)} proxies, {len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}, each run once "
            f"{' and once '.join(settings.kinds)}. {sum(line.passed for line in lines)} of {len(lines)} bars met."
        ),
        figures=[*bars(lines), *(_figure(seeds, rule, settings) for rule in seeds[0]["runs"][0]["stops"])],
        charts=[chart for kind in settings.kinds for size in settings.sizes for chart in _charts(seeds, kind, size)],
        settings=to_yaml(settings),
        notes=[
            f"Made by `backflip lab run guard --seeds {len(seeds)}`; tables.md beside this page holds the table.",
            "Every run went to its end; the rules were tried afterwards on what was written down of it, gold withheld.",
        ],
    )


def _figure(seeds: Sequence[Seed], rule: str, settings: Settings) -> Figure:
    found = counts(seeds, rule, settings.enough)
    return Figure(
        rule, f"{found['kept']} of {found['gamed']}", f"stops {found['stopped']} of {found['healthy']} healthy runs",
        f"runs in which it keeps {settings.enough:.0%} of the most gold",
    )  # fmt: skip


def _charts(seeds: Sequence[Seed], kind: str, size: int) -> list[Chart]:
    curves = [run["curve"] for s in seeds for run in s["runs"] if run["kind"] == kind and run["size"] == size]

    def together(prefix: str) -> list[list[float]]:
        """The mean of the judges whose names begin so, run by run."""
        return [
            [sum(column) / len(column) for column in zip(*(v for name, v in c.items() if name.startswith(prefix)), strict=True)]
            for c in curves
        ]

    shown = {
        "gold": [c["gold"] for c in curves], "proxy": [c["proxy"] for c in curves],
        "judges of labels": together("judge "), "taught judges": together("taught "),
    }  # fmt: skip
    lines = [band(name, curves[0]["step"], values) for name, values in shown.items()]
    return [
        Chart(
            f"Proxy of width {size}", "step", "score", lines,
            "Mean over seeds, from the lowest to the highest; of judges the mean. Every model in its own unit.",
            group=f"Runs {kind}",
        ),
        Chart(
            f"KL, proxy of width {size}", "step", "nats a sequence",
            [band("KL", curves[0]["step"], [c["kl"] for c in curves])], group=f"Runs {kind}",
        ),
    ]  # fmt: skip


def tables(seeds: Sequence[Seed], settings: Settings) -> str:
    """The table of the page in the documentation."""

    def row(rule: str) -> list[str]:
        found = counts(seeds, rule, settings.enough)
        runs = [run for s in seeds for run in s["runs"] if run["kind"] == LEFT_ALONE]
        kept = sorted(share_kept(run["curve"], run["stops"][rule]["keeps"]) for run in runs)
        middle = kept[len(kept) // 2]
        return [
            rule, f"{found['kept']} of {found['gamed']}", f"{found['stopped']} of {found['healthy']}", f"{middle:.0%}",
            f"{kept[0]:.0%}",
        ]  # fmt: skip

    head = [
        "rule", f"over-optimising runs with ≥ {settings.enough:.0%} of the peak", "healthy runs stopped",
        "of the peak, median of the runs left alone", "worst",
    ]  # fmt: skip
    told = [
        [kind, f"{found.gamed}", f"{found.healthy}", "" if found.after is None else f"{found.after:+g}"]
        for kind, found in raised(seeds, settings.enough).items()
    ]
    alarms = table(["alarm", "over-optimising runs", "honest runs", "steps after the peak of gold, median"], told)
    return table(head, [row(rule) for rule in seeds[0]["runs"][0]["stops"]]) + "\n" + alarms
