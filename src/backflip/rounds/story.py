"""The report of a loop: what happened to gold, proxy and KL, who beat whom, and what the generations write."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backflip.arena import Standings
from backflip.records import Sample
from backflip.runs.guard_story import alerts, read_guard
from backflip.runs.logs import read_lines, read_object
from backflip.runs.report_data import Alert, Chart, Column, Figure, ReportData, SampleRow, Series, Watched

CURVES = (
    (
        "objective/gold",
        "Gold reward",
        "the hidden truth, per completion",
        "What the simulated people really want; the policy never sees it.",
    ),
    (
        "objective/scores",
        "Proxy reward",
        "reward model's score",
        "What the policy is trained on. A round works only if gold, or the sentinel, rises with it.",
    ),
    (
        "objective/sentinel",
        "Sentinel",
        "second reward model's score",
        "A model of other comparisons that nothing is optimised against.",
    ),
    (
        "kl/seq_nats",
        "Distance from the first policy",
        "KL, nats per sequence",
        "How far the policy has moved; the controller steers it to the round's target.",
    ),
    ("objective/entropy", "Entropy", "nats per token", "How undecided the policy still is."),
    ("rollout/length", "Length", "tokens", "A reward that only likes length, or brevity, would show here."),
    ("rollout/unfinished_share", "Unfinished", "share of completions", "Completions cut off before their end."),
)
"""Metric, title, unit and explanation of every curve of PPO that a report shows."""


def tell(
    folder: Path,
    *,
    title: str,
    summary: str,
    figures: Sequence[Figure],
    generations: Mapping[str, Sequence[Sample]],
    rewards: Mapping[str, Mapping[str, Sequence[float]]],
    table: Standings,
    rounds: int,
    kl_budget: float,
    settings: str,
    notes: Sequence[str],
    shown: int = 6,
) -> ReportData:
    """Everything `report.html` says.

    `generations` maps each policy to its arena samples, prompts in the same order; `rewards` maps "gold" and "proxy" to each
    policy's score of every sample. The fine-tuned and the last generation stand side by side.
    """
    names = list(generations)
    order = [names[0], *names[1:-1], names[-1]] if len(names) > 1 else names
    charts = [_by_generation(order, rewards), *_ppo_curves(folder, rounds, kl_budget)]
    rows = []
    for i in range(min(shown, len(generations[names[0]]))):
        columns = [
            Column(name, generations[name][i].text.strip(), {kind: scores[name][i] for kind, scores in rewards.items()})
            for name in dict.fromkeys(("sft" if "sft" in names else names[0], names[-1]))
        ]
        rows.append(SampleRow(generations[names[0]][i].prompt.plain.strip(), columns))
    return ReportData(
        title=title, summary=summary, figures=figures, charts=charts, ratings=list(table.ratings), samples=rows,
        settings=settings, notes=[*table.notes, *notes], watched=watched_rounds(folder, rounds),
    )  # fmt: skip


def watched_rounds(folder: Path, rounds: int) -> Watched | None:
    """What the rounds' monitors found, and what people's answers said that is an alarm; None where nobody looked or answered."""
    found: list[Alert] = []
    looked = False
    for r in range(1, rounds + 1):
        place = folder / f"round{r}"
        report, decision = read_guard(place / "ppo"), place / "decision.json"
        rows = report if report is not None else {"findings": []}
        if decision.exists():
            known = rows["findings"]
            rows = {"findings": [*known, *(a for a in read_object(decision)["evidence"].get("alarms", ()) if a not in known)]}
        found += alerts(rows, where=f"round {r}")
        looked = looked or report is not None or bool(rows["findings"])
    if not looked:
        return None
    kinds = len({alert.kind for alert in found})
    said = f"{len(found)} alarms of {kinds} kinds in {rounds} rounds." if found else f"{rounds} rounds without an alarm."
    return Watched(verdict=f"{said} What each round's monitor saw stands in the report of its own run, roundR/ppo.", alerts=found)


def _by_generation(names: Sequence[str], rewards: Mapping[str, Mapping[str, Sequence[float]]]) -> Chart:
    xs = list(range(len(names)))
    series = []
    for kind, scores in rewards.items():
        means = [_mean(scores[name]) for name in names]
        spread = [1.96 * _standard_error(scores[name]) for name in names]
        low, high = (
            [m - s for m, s in zip(means, spread, strict=True)],
            [m + s for m, s in zip(means, spread, strict=True)],
        )
        series.append(Series(kind, xs, means, low, high))
    where = ", ".join(f"{i} {name}" for i, name in enumerate(names))
    return Chart(
        "Reward by generation", f"generation ({where})", "mean reward", series,
        "Mean over the arena's prompts with its 95 % interval. The proxy is the last round's reward model.", group="Generations",
    )  # fmt: skip


def _ppo_curves(folder: Path, rounds: int, kl_budget: float) -> list[Chart]:
    logs = {r: read_lines(folder / f"round{r}" / "ppo" / "metrics.jsonl") for r in range(1, rounds + 1)}
    charts = []
    for key, title, unit, sentence in CURVES:
        series = []
        for r, rows in logs.items():
            points = [(row["step"], row[key]) for row in rows if key in row]
            if points:
                xs, ys = [p[0] for p in points], [p[1] for p in points]
                series.append(Series(f"round {r}", xs, ys))
                if key == "kl/seq_nats":
                    series.append(Series(f"target {r}", [xs[0], xs[-1]], [r * kl_budget] * 2))
        if series:
            charts.append(Chart(title, "PPO step", unit, series, sentence, group="While improving"))
    return charts


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _standard_error(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.sqrt(sum((v - mean) ** 2 for v in values) / max(1, len(values) - 1) / len(values))


def figures_of(result: Mapping[str, Any], last: str) -> list[Figure]:
    """The headline numbers of a loop's result."""
    found = _bars(result["reward_model"]) if "reward_model" in result else []
    if "gold" in result:
        gold = result["gold"]
        found.append(Figure("Gold reward", f"{gold[last]:+.2f}", note=f"was {gold['sft']:+.2f} after fine-tuning"))
    if result.get("win_rate_vs_sft") is not None:
        rate = result["win_rate_vs_sft"]
        interval = _interval(rate["low"], rate["high"], ".0%")
        found.append(Figure("Wins against sft", f"{rate['mean']:.0%}", interval, f"{rate['n']} blind comparisons"))
    if "sentinel" in result:
        gain, proxy = result["gain"]["sentinel"], result["gain"]["proxy"]["mean"]
        interval = _interval(gain["low"], gain["high"], "+.2f")
        found.append(Figure("Sentinel reward", f"{gain['mean']:+.2f}", interval, f"while the proxy gained {proxy:+.2f}"))
    target = f"target {result['kl_target_nats']:.0f} nats per sequence"
    found.append(Figure("KL to sft", f"{result['kl_seq_nats']:.1f} nats", note=target))
    if "rm_accuracy" in result:
        found.append(Figure("Reward model", f"{result['rm_accuracy']:.0%}", note="right on fresh pairs"))
    rounds = f"{result['rounds']} round{'s' * (result['rounds'] != 1)}"
    found.append(Figure("Comparisons", f"{result['comparisons']:,}", note=f"in {rounds}"))
    return found


def _bars(quality: Mapping[str, Any]) -> list[Figure]:
    """How often the reward model is right, beside the rule it must beat."""
    ours = _interval(quality["accuracy_low"], quality["accuracy_high"], ".1%")
    bar = _interval(quality["shorter_low"], quality["shorter_high"], ".1%")
    pairs = f"of {quality['n']} held-out pairs"
    return [
        Figure("Reward model right", f"{quality['accuracy']:.1%}", ours, f"{pairs}; a coin: 50 %"),
        Figure("Shorter reply right", f"{quality['shorter_accuracy']:.1%}", bar, f"{pairs}: the bar to beat"),
    ]


def _interval(low: float, high: float, form: str) -> str:
    return f"95 % interval {low:{form}} to {high:{form}}"
