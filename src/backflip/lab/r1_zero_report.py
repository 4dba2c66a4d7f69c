"""The report of `r1-zero`: what a person would be shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from backflip.config import to_yaml
from backflip.lab.outcome import Line
from backflip.lab.r1_zero_figures import STYLES
from backflip.lab.r1_zero_settings import Settings
from backflip.lab.telling import band, bars
from backflip.runs.report_data import Chart, Column, Figure, ReportData, SampleRow, Series

METHODS = {"grpo": "GRPO", "ppo": "PPO", "rloo": "RLOO", "reinforce": "REINFORCE"}
Seed = dict[str, Any]


def report(seeds: Sequence[Seed], lines: Sequence[Line], settings: Settings) -> ReportData:
    """Everything that was measured, as a page."""
    before, after, longer = (
        mean(seeds, of)
        for of in (
            lambda s: s["before"]["pass@1"],
            lambda s: s["after"]["pass@1"],
            lambda s: s["after"]["length"] / s["before"]["length"],
        )
    )
    digits = "4- to 6-digit sums"
    return ReportData(
        title="Reasoning by reinforcement alone",
        summary=(
            f"Rewarded for right answers and nothing else but the format, a small model goes from {before:.0%} to {after:.0%} on "
            f"{digits} ({len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}), and its completions grow ×{longer:.1f}. "
            f"{sum(line.passed for line in lines)} of {len(lines)} bars met."
        ),
        figures=[*bars(lines), *_reflection_figures(seeds), *_method_figures(seeds)],
        charts=[
            *_curves(seeds),
            *_checkpoint_charts(seeds),
            *_control_charts(seeds),
            *_reflection_charts(seeds),
            _methods(seeds),
        ],
        samples=_samples(seeds[0]),
        settings=to_yaml(settings),
        notes=_notes(seeds, settings),
    )


def mean(seeds: Sequence[Seed], of: Callable[[Seed], float]) -> float:
    """The mean over seeds of one figure."""
    return sum(map(of, seeds)) / len(seeds)


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _reflection_figures(seeds: Sequence[Seed]) -> list[Figure]:
    figures = []
    for when, words in (("before", "before any reinforcement"), ("after", "after GRPO")):
        found = [s[when]["reflection"] for s in seeds]
        gains = [r["gain"] for r in found if r["gain"] is not None]
        share = sum(r["frequency"] for r in found) / len(found)
        figures.append(
            Figure(
                f"What reflection is worth {words}",
                ", ".join(map(_signed, gains)) or "not measurable",
                note=f"P(right | wait) − P(right | none) at equal first drafts, one figure a seed; {share:.1%} of texts reflect",
            )
        )
    return figures


def _method_figures(seeds: Sequence[Seed]) -> list[Figure]:
    figures = []
    for key, name in METHODS.items():
        accuracy, seconds, memory = (
            mean(seeds, of)
            for of in (
                lambda s: s["compared"][key]["after"]["pass@1"],  # noqa: B023
                lambda s: s["compared"][key]["seconds"],  # noqa: B023
                lambda s: s["compared"][key]["peak_rss_mb"],  # noqa: B023
            )
        )
        figures.append(
            Figure(f"{name} at equal samples", f"{accuracy:.0%}", note=f"{seconds:.0f} s, {memory:.0f} MB at most; mean of seeds")
        )
    return figures


def _by_seed(seeds: Sequence[Seed], name: str) -> list[Series]:
    return [Series(f"seed {s['seed']}", s["curve"]["step"], s["curve"][name]) for s in seeds]


def _curves(seeds: Sequence[Seed]) -> list[Chart]:
    told = [
        ("pass@1", "Accuracy", "share right", "Of the step's own samples, on problems that come only once."),
        ("length", "Length", "tokens", "Mean length of a completion: scratchpads take over."),
        ("format", "Format", "share", "Share of completions inside the template."),
        ("entropy", "Entropy", "nats a token", "Of the next-token distribution, mean over the step's tokens."),
        ("dead groups", "Dead groups", "share", "Problems whose completions all score the same teach nothing."),
        ("kl", "KL to the base model", "nats a completion", "How far the policy went."),
    ]
    return [Chart(title, "step", unit, _by_seed(seeds, key), words, group="GRPO on sums") for key, title, unit, words in told]


def _checkpoint_charts(seeds: Sequence[Seed]) -> list[Chart]:
    steps = list(seeds[0]["checkpoints"])
    k = seeds[0]["after"]["k"]

    def over_seeds(of: Callable[[dict[str, Any]], float]) -> list[float]:
        return [sum(of(s["checkpoints"][step]) for s in seeds) / len(seeds) for step in steps]

    accuracy = [Series(name.replace("k", str(k)), steps, over_seeds(lambda m: m[name])) for name in ("pass@1", "maj@k", "pass@k")]  # noqa: B023
    styles = [Series(style, steps, over_seeds(lambda m: m["styles"][style]["share"])) for style in STYLES]  # noqa: B023
    return [
        Chart(
            f"One try, the vote of {k}, the best of {k}", "step", "share right", accuracy,
            "On test problems, mean over seeds: what one try gains is largely what many tries had before.", group="Checkpoints",
        ),
        Chart(
            "How it works", "step", "share of completions", styles,
            "Direct answers, short and full scratchpads, and everything else, mean over seeds.", group="Checkpoints",
        ),
    ]  # fmt: skip


def _control_charts(seeds: Sequence[Seed]) -> list[Chart]:
    names = {"control": "Dr. GRPO", "control-biased": "GRPO"}

    def series(key: str, figure: str) -> Series:
        steps = seeds[0]["control"][key]["curve"]["step"]
        return band(names[key], steps, [s["control"][key]["curve"][figure] for s in seeds])

    group = "Control task: copying"
    return [
        Chart(
            "Length where it does not help", "step", "tokens", [series(key, "length") for key in names],
            "Mean over seeds, from the lowest to the highest.", group=group,
        ),
        Chart("Accuracy there", "step", "share right", [series(key, "pass@1") for key in names], "The same runs.", group=group),
    ]  # fmt: skip


def _reflection_charts(seeds: Sequence[Seed]) -> list[Chart]:
    gains, shares = [], []
    for s in seeds:
        steps = list(s["checkpoints"])
        found = [m["reflection"] for m in s["checkpoints"].values()]
        gains.append(Series(f"seed {s['seed']}", steps, [r["gain"] for r in found]))
        shares.append(Series(f"seed {s['seed']}", steps, [r["frequency"] for r in found]))
    return [
        Chart(
            "What reflection is worth", "step", "difference of shares", gains,
            "P(right | wait) − P(right | none), matched on the first draft; a gap where nothing reflects. Few texts do: noisy.",
            group="Reflection",
        ),
        Chart("How much of it there is", "step", "share of completions", shares, "Texts that hold a wait.", group="Reflection"),
    ]  # fmt: skip


def _methods(seeds: Sequence[Seed]) -> Chart:
    lines = []
    for key, name in METHODS.items():
        steps = seeds[0]["compared"][key]["curve"]["step"]
        values = [mean(seeds, lambda s: s["compared"][key]["curve"]["pass@1"][i]) for i in range(len(steps))]  # noqa: B023
        lines.append(Series(name, steps, values))
    return Chart(
        "Four methods at equal samples", "step", "share right", lines,
        "The same problems, step size and KL penalty; a smaller budget than above. Mean over seeds.", group="Methods",
    )  # fmt: skip


def _samples(s: Seed) -> list[SampleRow]:
    pairs = zip(s["before"]["shown"], s["after"]["shown"], strict=True)
    return [
        SampleRow(
            old["prompt"], [Column("base", "\n".join(old["texts"])), Column("after GRPO", "\n".join(new["texts"]))]
        )
        for old, new in pairs
    ]  # fmt: skip


def _notes(seeds: Sequence[Seed], settings: Settings) -> list[str]:
    return [
        f"Made by `backflip lab run r1-zero --seeds {len(seeds)}`. Accuracy before and after is that of {settings.tries} "
        f"tries at each of {settings.problems} test problems that occur in no corpus and no run, at temperature 1.",
        "A completion is right when the text between its answer tags is exactly the sum; one that is cut off is wrong.",
        "A first draft is right when every column of the scratchpad was right as first written. Reflection is compared with none "
        "within right drafts and within wrong ones, weighted by how the reflecting texts are spread over the two.",
        "Every tag, `wait`, `copy` and each character is one token of the model's vocabulary.",
    ]
