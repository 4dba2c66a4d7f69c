"""What a report says, free of how it looks: headline figures, charts, ratings, samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backflip.records import Rating


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


@dataclass(frozen=True, slots=True)
class Alert:
    """An alarm that a monitor raised: what it asks for (`act`), and as text the numbers it rests on; `where`: of which run."""

    kind: str
    step: int
    act: str
    sentence: str
    evidence: Mapping[str, str] = field(default_factory=dict)
    where: str = ""


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature of texts, its mean before and now, and what proxy and judges (None: there are none) pay for the difference."""

    feature: str
    before: float
    now: float
    proxy: float
    judges: float | None = None


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What a monitor saw of a run: what came of it, its alarms, curves over the looks, features that are paid for, suspects."""

    verdict: str
    alerts: Sequence[Alert] = ()
    charts: Sequence[Chart] = ()
    features: Sequence[Feature] = ()
    suspects: Sequence[SampleRow] = ()


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
    watched: Watched | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ReportData:
        """What `to_json` wrote. Raises KeyError, TypeError or ValueError on anything else."""
        made = dict(values)
        made["figures"] = [Figure(**v) for v in made.get("figures", ())]
        made["charts"] = _charts(made.get("charts", ()))
        made["ratings"] = [Rating(**v) for v in made.get("ratings", ())]
        made["samples"] = _samples(made.get("samples", ()))
        if (found := made.get("watched")) is not None:
            made["watched"] = Watched(
                verdict=found["verdict"], alerts=[Alert(**v) for v in found["alerts"]], charts=_charts(found["charts"]),
                features=[Feature(**v) for v in found["features"]], suspects=_samples(found["suspects"]),
            )  # fmt: skip
        return cls(**made)


def _charts(rows: Sequence[Mapping[str, Any]]) -> list[Chart]:
    return [Chart(**{**row, "series": [Series(**s) for s in row["series"]]}) for row in rows]


def _samples(rows: Sequence[Mapping[str, Any]]) -> list[SampleRow]:
    return [SampleRow(row["prompt"], [Column(**c) for c in row["columns"]]) for row in rows]
