"""A run told as one page: `report.html`, a single file that needs no network and no server.

`ReportData` is what the page says, free of how it looks; it is stored beside the page as `report.json`, so
`backflip report FOLDER` can set it again. A training run without one is read from its logs.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backflip.errors import DataError
from backflip.records import Rating
from backflip.runs.atomic import storage, write_atomic
from backflip.runs.logs import read_lines

_SAMPLES = 6  # prompts shown on the page of a training run
_HEADLINES = 8


@dataclass(frozen=True, slots=True)
class Figure:
    """A headline number: `Figure("Gold reward", "+1.24", "95 % interval 1.08 to 1.40", "was −0.02 before")`."""

    label: str
    value: str
    interval: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart; `low` and `high`, both or neither, are its interval, drawn as a band.

    A value may be None where nothing was measured: the line has a gap there.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float | None]
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None

    def __post_init__(self) -> None:
        lengths = {len(values) for values in (self.xs, self.ys, self.low, self.high) if values is not None}
        if len(lengths) != 1 or (self.low is None) != (self.high is None):
            raise ValueError(f"series {self.name!r}: xs, ys and, if given, low and high need the same length")


@dataclass(frozen=True, slots=True)
class Chart:
    """A small chart with the sentence that explains it; charts of one `group` stand together under that heading."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    explanation: str = ""
    group: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """What one policy wrote for a prompt, and its rewards by name."""

    policy: str
    text: str
    rewards: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SampleRow:
    """One prompt and, side by side, what several policies wrote: the earliest first."""

    prompt: str
    columns: Sequence[Column]


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Everything a report says. `settings` is YAML text; `notes` are sentences on how the numbers were made."""

    title: str
    summary: str = ""
    figures: Sequence[Figure] = ()
    charts: Sequence[Chart] = ()
    ratings: Sequence[Rating] = ()
    samples: Sequence[SampleRow] = ()
    settings: str = ""
    notes: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ReportData:
        """What `to_json` wrote. Raises KeyError, TypeError or ValueError on anything else."""
        made = dict(values)
        made["figures"] = [Figure(**v) for v in made.get("figures", ())]
        made["charts"] = [Chart(**{**v, "series": [Series(**s) for s in v["series"]]}) for v in made.get("charts", ())]
        made["ratings"] = [Rating(**v) for v in made.get("ratings", ())]
        made["samples"] = [SampleRow(v["prompt"], [Column(**c) for c in v["columns"]]) for v in made.get("samples", ())]
        return cls(**made)


def write_report(folder: str | Path, data: ReportData | None = None) -> Path:
    """Write FOLDER/report.html and return its path.

    With `data`, that is what it says, and FOLDER/report.json keeps it. Without, an existing report.json is set
    again, and else the logs of the training run in FOLDER are read. Raises DataError when there is neither.
    """
    from backflip.runs.page import render

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
    return ReportData(
        title=folder.resolve().name,
        summary=f"A {card.get('kind', 'training')} run of {steps} steps, {state}.",
        figures=_headlines(result or {}),
        charts=_curves(metrics),
        samples=_samples(read_lines(folder / "samples.jsonl")),
        settings=settings.read_text(encoding="utf-8") if settings.exists() else "",
    )


def _object(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError) as problem:
        raise DataError(f"{path} cannot be read: {problem}") from problem
    if not isinstance(values, dict):
        raise DataError(f"{path} should hold a JSON object")
    return values


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
