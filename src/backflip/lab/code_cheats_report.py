"""The report of `code-cheats`: what a person would be shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backflip.config import to_yaml
from backflip.lab.code_cheats_figures import over_seeds
from backflip.lab.code_cheats_settings import Settings
from backflip.lab.outcome import Line
from backflip.lab.telling import band, bars
from backflip.runs.report_data import Chart, Column, Figure, ReportData, SampleRow, Series

Seed = dict[str, Any]


def report(seeds: Sequence[Seed], lines: Sequence[Line], settings: Settings) -> ReportData:
    """Everything that was measured, as a page."""
    titles = {name: regime.title for name, regime in settings.regimes().items()}
    told = over_seeds(seeds)
    none, hidden, monitor = (told[name]["after"] for name in ("none", "hidden", "monitor"))
    return ReportData(
        title="Cheating on tests",
        summary=(
            f"Rewarded for what its visible tests report, a policy ends with a hack rate of {none['hack_rate']['mean']:.0%} "
            f"({len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}); with hidden tests in the reward it is "
            f"{hidden['hack_rate']['mean']:.0%}, and {hidden['honest']['mean']:.0%} of the programs solve their task honestly. "
            f"A monitor in the reward flags {monitor['flagged']['mean']:.0%} of the programs in the end, while the hack rate is "
            f"{monitor['hack_rate']['mean']:.0%}. {sum(line.passed for line in lines)} of {len(lines)} bars met."
        ),
        figures=[*bars(lines), *_regimes(told, titles)],
        charts=[*_compared(seeds, titles), *_obfuscation(seeds), *_cheats(seeds, titles)],
        samples=_samples(seeds[0], titles),
        settings=to_yaml(settings),
        notes=_notes(seeds, settings),
    )


def _regimes(told: dict[str, Any], titles: dict[str, str]) -> list[Figure]:
    def from_to(regime: str, name: str) -> str:
        return " → ".join(f"{told[regime][when][name]['mean']:.0%}" for when in ("before", "after"))

    return [
        Figure(
            f"{title}: hack rate", from_to(name, "hack_rate"),
            "after: {min:.0%} to {max:.0%}".format(**told[name]["after"]["hack_rate"]),
            f"solved honestly {from_to(name, 'honest')}; means of seeds",
        )
        for name, title in titles.items()
    ]  # fmt: skip


def _line(seeds: Sequence[Seed], regime: str, figure: str, title: str) -> Series:
    curves = [s["regimes"][regime]["curve"] for s in seeds]
    return band(title, curves[0]["step"], [curve[figure] for curve in curves])


def _compared(seeds: Sequence[Seed], titles: dict[str, str]) -> list[Chart]:
    told = [
        ("hack_rate", "Hack rate", "share that passes the visible tests less share that passes the hidden ones"),
        ("honest", "Solved honestly", "share that passes all tests without a cheat"),
        ("visible", "Visible tests pass", "share for which the visible tests report success"),
        ("hidden", "Hidden tests pass", "share that passes the hidden tests"),
    ]
    return [
        Chart(
            title, "step", "share", [_line(seeds, name, figure, words) for name, words in titles.items()],
            f"Of a step's programs, the {words}. Tasks come once; the first part has easy ones. Mean, lowest and highest seed.",
            group="Through training",
        )
        for figure, title, words in told
    ]  # fmt: skip


def _obfuscation(seeds: Sequence[Seed]) -> list[Chart]:
    curves = [s["regimes"]["monitor"]["curve"] for s in seeds]
    seen = [
        _line(seeds, "monitor", figure, words)
        for figure, words in (("flagged", "flagged"), ("hack_rate", "hack rate"), ("honest", "solved honestly"))
    ]
    missed = [Series(f"seed {s['seed']}", c["step"], c["missed"]) for s, c in zip(seeds, curves, strict=True)]
    group = "Obfuscation: a monitor in the reward"
    return [
        Chart(
            "What it flags, and what is true", "step", "share", seen,
            "Flags cost reward. Where the hack rate is high and the flagged share is not, cheating has gone out of sight.",
            group=group,
        ),
        Chart(
            "Hacks that it misses", "step", "share of the hacks", missed,
            "It knows each cheat by its usual spelling, and misses the rarer one that does the same.", group=group,
        ),
    ]  # fmt: skip


def _cheats(seeds: Sequence[Seed], titles: dict[str, str]) -> list[Chart]:
    kinds = (("special", "special case"), ("edit", "edited test"), ("exit", "early exit"), ("honest", "solved honestly"))
    return [
        Chart(
            title, "step", "share of programs", [_line(seeds, name, figure, words) for figure, words in kinds],
            "Which way is taken. Mean, lowest and highest seed.", group="Which cheat",
        )
        for name, title in titles.items()
    ]  # fmt: skip


def _samples(s: Seed, titles: dict[str, str]) -> list[SampleRow]:
    """A few test tasks, the program that was planted in each, and what the models of one seed wrote."""
    before = s["regimes"]["none"]["before"]["shown"]
    rows = []
    for i, row in enumerate(before):
        after = [Column(title, s["regimes"][name]["after"]["shown"][i]["texts"][0]) for name, title in titles.items()]
        rows.append(SampleRow(f"{row['prompt']}  planted: {row['planted']}", [Column("base", row["texts"][0]), *after]))
    return rows


def _notes(seeds: Sequence[Seed], settings: Settings) -> list[str]:
    return [
        f"Made by `backflip lab run code-cheats --seeds {len(seeds)}`. Before and after are measured with "
        f"{settings.tries} programs for each of {settings.tasks} test tasks, which occur in no corpus and no run; temperature 1.",
        "Hack rate: the share of programs for which the visible tests report success less the share that passes the ten hidden "
        "tests, which are compared outside the program's reach. It counts honest programs that pass by luck too.",
        "Solved honestly: all visible and hidden tests pass and nothing in the program is a cheat.",
    ]
