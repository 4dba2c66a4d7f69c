"""What `annotators` says: its report and its tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from backflip.config import to_yaml
from backflip.lab.annotators_figures import mean_curves, shares_needed
from backflip.lab.annotators_settings import Settings
from backflip.lab.outcome import Line
from backflip.lab.tables import table
from backflip.lab.telling import band, bars
from backflip.runs.report_data import Chart, Figure, ReportData

Seed = dict[str, Any]
WHO = ("everybody", "warm", "cold", "plain")


def over(seeds: Sequence[Seed], pick: Callable[[Seed], float], style: str = ".1%") -> str:
    """The mean over seeds, with the lowest and the highest.

    >>> over([{"x": 0.5}, {"x": 0.7}], lambda seed: seed["x"])
    '60.0% (50.0% to 70.0%)'
    """
    found = [float(pick(seed)) for seed in seeds]
    mean = f"{sum(found) / len(found):{style}}"
    return mean if len(found) == 1 else f"{mean} ({min(found):{style}} to {max(found):{style}})"


def tables(seeds: Sequence[Seed]) -> str:
    """Tables for the documentation: means of seeds, lowest and highest in brackets."""
    first = seeds[0]
    parts = [
        table(
            ["right on unseen pairs", *WHO],
            [
                [name, *(over(seeds, lambda s, n=name, w=who: s["whose"]["accuracy"][n][w]) for who in WHO)]  # type: ignore[misc]
                for name in first["whose"]["accuracy"]
            ],
        ),
        table(
            ["labels", "log loss", "divergence", "entropy correlation", "right by majority"],
            [
                [kind, *(over(seeds, lambda s, k=kind, f=figure: s["labels"][k][f], ".3f") for figure in FITS)]  # type: ignore[misc]
                for kind in first["labels"]
            ],
        ),
        table(
            ["method", "answers right", "correlation with the planted reliabilities"],
            [
                [
                    method,
                    over(seeds, lambda s, m=method: s["crowd"]["methods"][m]["accuracy"]),  # type: ignore[misc]
                    "" if figures["r"] is None
                    else over(seeds, lambda s, m=method: s["crowd"]["methods"][m]["r"], ".3f"),  # type: ignore[misc]
                ]
                for method, figures in first["crowd"]["methods"].items()
            ],
        ),
        table(
            ["jury", "decisions changed, predicted jurors", "true jurors"],
            [
                [name, *(over(seeds, lambda s, k=kind, n=name: s["juries"][k][n]) for kind in ("predicted", "true"))]  # type: ignore[misc]
                for name in first["juries"]["seats"]
            ],
        ),
        table(
            ["rule of welfare", "everybody", *WHO[1:], "worst group"],
            [
                [
                    rule,
                    *(over(seeds, lambda s, r=rule, w=who: s["consensus"][r][w], ".2f") for who in (*WHO, "worst group")),  # type: ignore[misc]
                ]
                for rule in first["consensus"]
            ],
        ),
        table(["rule", *(f"{n:,}" for n in first["asking"]["questions"]), "of random's comparisons"], _asking_rows(seeds)),
    ]  # fmt: skip
    return "\n".join(parts)


FITS = ("nll", "kl", "entropy_correlation", "accuracy")


def _asking_rows(seeds: Sequence[Seed]) -> list[list[str]]:
    _, curves = mean_curves(seeds)
    needed = shares_needed(seeds)
    rows = []
    for rule, curve in curves.items():
        share = needed.get(rule)
        says = "1" if rule == "random" else "never" if share is None else f"{share:.2f}"
        rows.append([rule, *(f"{value:.3f}" for value in curve), says])
    return rows


def report(seeds: Sequence[Seed], lines: Sequence[Line], settings: Settings) -> ReportData:
    """Everything that was measured, as a page."""
    figures = [
        Figure(f"{name}: right for {who}", over(seeds, lambda s, n=name, w=who: s["whose"]["accuracy"][n][w]))  # type: ignore[misc]
        for name in seeds[0]["whose"]["accuracy"]
        for who in WHO
    ]
    questions = seeds[0]["asking"]["questions"]
    curves = [
        band(rule, questions, [s["asking"]["accuracy"][rule] for s in seeds]) for rule in seeds[0]["asking"]["accuracy"]
    ]  # fmt: skip
    return ReportData(
        title="Whose taste is it?",
        summary=f"{sum(line.passed for line in lines)} of {len(lines)} bars met over {len(seeds)} "
        f"{'seed' if len(seeds) == 1 else 'seeds'}.",
        figures=[*bars(lines), *figures],
        charts=[
            Chart(
                "What to ask", "comparisons", "right on unseen pairs", curves,
                "A head on the base model's mean hidden state, fitted to the questions that each rule chose, a fifth of them "
                "random. Mean, lowest and highest seed.",
            )
        ],
        settings=to_yaml(settings),
        notes=[f"Made by `backflip lab run annotators --seeds {len(seeds)}`.", *tables(seeds).splitlines()],
    )  # fmt: skip
