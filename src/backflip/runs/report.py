"""A run told as one page: `report.html`, a single file that needs no network and no server.

`ReportData` is what the page says, free of how it looks; it is stored beside the page as `report.json`, so
`backflip report FOLDER` can set it again. A training run without one is read from its logs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backflip.errors import DataError
from backflip.runs.atomic import storage, write_atomic
from backflip.runs.guard_story import CURVES, JUDGED, read_guard, watched
from backflip.runs.logs import read_lines, read_object
from backflip.runs.page import render
from backflip.runs.report_data import Chart, Column, Figure, ReportData, SampleRow, Series

_SAMPLES = 6  # prompts shown on the page of a training run
_HEADLINES = 8


def write_report(folder: str | Path, data: ReportData | None = None) -> Path:
    """Write FOLDER/report.html and return its path.

    With `data`, that is what it says, and FOLDER/report.json keeps it. Without, an existing report.json is set
    again, and else the logs of the training run in FOLDER are read. Raises DataError when there is neither.
    """
    folder = Path(folder)
    stored = folder / "report.json"
    if data is not None:
        with storage(f"report folder {folder} cannot be made"):
            folder.mkdir(parents=True, exist_ok=True)
        write_atomic(stored, json.dumps(data.to_json(), indent=1) + "\n")
    elif stored.exists():
        data = read_report(stored)
    else:
        data = from_run(folder)
    page = folder / "report.html"
    write_atomic(page, render(data).encode("utf-8", errors="replace"))
    return page


def read_report(path: Path) -> ReportData:
    """The report stored in `path`. Raises DataError when it is not one."""
    try:
        return ReportData.from_json(json.loads(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise DataError(f"{path} is not a stored report ({problem}); delete it or make it again") from problem


def from_run(folder: Path) -> ReportData:
    """The report of a plain training run, from its run.json, logs and result. Raises DataError when it is none."""
    card = _object(folder / "run.json")
    if card is None:
        raise DataError(f"{folder} is not a run folder: it has neither run.json nor report.json")
    result = _object(folder / "result.json")
    metrics = read_lines(folder / "metrics.jsonl")
    steps = max((row["step"] for row in metrics), default=0)
    state = "finished" if result is not None else "not finished yet"
    settings = folder / "settings.yaml"
    guard = read_guard(folder)
    told = {key for key, *_ in CURVES} | {*JUDGED} if guard is not None else set()
    return ReportData(
        title=folder.resolve().name,
        summary=f"A {card.get('kind', 'training')} run of {steps} steps, {state}.",
        figures=_headlines(result or {}),
        charts=_curves([{name: value for name, value in row.items() if name not in told} for row in metrics]),
        samples=_samples(read_lines(folder / "samples.jsonl")),
        settings=settings.read_text(encoding="utf-8") if settings.exists() else "",
        watched=None if guard is None else watched(guard),
    )


def _object(path: Path) -> dict[str, Any] | None:
    return read_object(path) if path.exists() else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _headlines(result: Mapping[str, Any]) -> list[Figure]:
    numbers = [(name, value) for name, value in result.items() if _is_number(value)]
    return [Figure(name, f"{value:.4g}".replace("-", "−")) for name, value in numbers[:_HEADLINES]]


def _curves(metrics: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """One chart per metric; `objective/kl` stands in the group "objective"."""
    values: dict[str, tuple[list[float], list[float | None]]] = {}
    for row in metrics:
        for name, value in row.items():
            if name != "step" and _is_number(value):
                xs, ys = values.setdefault(name, ([], []))
                xs.append(row["step"])
                ys.append(value)
    charts = []
    for name, (xs, ys) in values.items():
        group, _, short = name.rpartition("/")
        charts.append(Chart(short, "step", "", [Series(short, xs, ys)], group=group or "training"))
    groups = list(dict.fromkeys(chart.group for chart in charts))
    return sorted(charts, key=lambda chart: groups.index(chart.group))


def _samples(rows: Sequence[Mapping[str, Any]]) -> list[SampleRow]:
    """The last step's samples, each beside what was written for the same prompt at the first step, if it was."""
    if not rows:
        return []
    first, last = rows[0]["step"], rows[-1]["step"]
    early: dict[str, Mapping[str, Any]] = {}
    late: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        if row["step"] == last:
            late.setdefault(_prompt(row), row)
        elif row["step"] == first:
            early.setdefault(_prompt(row), row)
    prompts = sorted(late, key=lambda prompt: prompt not in early)[:_SAMPLES]
    return [
        SampleRow(prompt, [_column(row) for row in (early.get(prompt), late[prompt]) if row is not None]) for prompt in prompts
    ]


def _prompt(row: Mapping[str, Any]) -> str:
    prompt = row.get("prompt", "")
    return prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False)


def _column(row: Mapping[str, Any]) -> Column:
    text = str(row.get("completion", row.get("text", "")))
    rewards = {name: value for name, value in row.items() if name != "step" and _is_number(value)}
    return Column(f"step {row['step']}", text, rewards)
