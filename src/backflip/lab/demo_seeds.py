"""Does the demo work for every seed? It is run as a user runs it, once a seed, and held against its bars."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backflip.config import setting
from backflip.errors import BackflipError
from backflip.lab.outcome import Line, at_least, at_most, write_result
from backflip.lab.telling import bars
from backflip.runs.report import write_report
from backflip.runs.report_data import Chart, ReportData, Series

TITLE = "The demo over several seeds: gold, proxy, win rate, KL, time and memory."


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to repeat."""

    seeds: int = setting(5, "Seeds 0, 1, … this many.", at_least=1)


def run(settings: Settings, folder: Path, quiet: bool) -> bool:
    """Run the demo for every seed that has no result yet; whether all bars were met."""
    results = [_one(seed, folder / f"seed{seed}", quiet) for seed in range(settings.seeds)]
    lines = judge(results)
    met = write_result(folder, {"seeds": results}, lines)
    write_report(folder, report(results, lines))
    return met


def _one(seed: int, folder: Path, quiet: bool) -> dict[str, Any]:
    if not (folder / "result.json").exists():
        command = [sys.executable, "-m", "backflip", "demo", "--seed", str(seed), "--output", str(folder)]
        done = subprocess.run([*command, *(["--quiet"] if quiet else [])], check=False)
        if done.returncode:
            raise BackflipError(f"the demo of seed {seed} ended with exit code {done.returncode}; see its message above")
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


def judge(results: Sequence[dict[str, Any]]) -> list[Line]:
    """The demo's bars, each by its worst seed."""
    names = ["sft", *(f"round{r + 1}" for r in range(results[0]["rounds"]))]
    rises = [r["gold"][b] - r["gold"][a] for r in results for a, b in itertools.pairwise(names)]
    return [
        at_most("seconds", max(r["seconds"] for r in results), 240),
        at_most("peak memory, MB", max(r["peak_rss_mb"] for r in results), 2048),
        Line("smallest rise of gold from one generation to the next", min(rises), "> 0", min(rises) > 0),
        at_least("wins against sft, worst seed", min(r["win_rate_vs_sft"]["mean"] for r in results), 0.80),
        at_least("lower end of its 95 % interval, worst seed", min(r["win_rate_vs_sft"]["low"] for r in results), 0.75),
        at_most("distance of KL from its target, nats", max(abs(r["kl_seq_nats"] - r["kl_target_nats"]) for r in results), 2.0),
        at_least("reward model right on fresh pairs, worst seed", min(r["rm_accuracy"] for r in results), 0.80),
        at_most("unfinished or malformed share, worst seed", max(r["unfinished_share"] for r in results), 0.05),
    ]


def report(results: Sequence[dict[str, Any]], lines: Sequence[Line]) -> ReportData:
    """The report: one line per seed, gold beside proxy."""
    names = list(results[0]["gold"])
    xs = list(range(len(names)))
    where = ", ".join(f"{i} {name}" for i, name in enumerate(names))
    charts = [
        Chart(
            f"{kind.capitalize()} by generation", f"generation ({where})", "mean reward",
            [Series(f"seed {r['seed']}", xs, [r[kind][name] for name in names]) for r in results],
            "Mean over the arena's prompts, one line per seed.",
        )
        for kind in ("gold", "proxy")
    ]  # fmt: skip
    return ReportData(
        title="The demo over several seeds",
        summary=f"{sum(line.passed for line in lines)} of {len(lines)} bars met over {len(results)} seeds.",
        figures=bars(lines), charts=charts, notes=[f"Made by `backflip lab run demo-seeds --seeds {len(results)}`."],
    )  # fmt: skip
