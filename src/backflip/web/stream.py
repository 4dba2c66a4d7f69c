"""Runs as they are written, as server-sent events: what is new and nothing twice.

    rows       {"run": ID, "log": "metrics" or "timings", "reset": false,
                "rows": [{"step": 7, "values": {"kl/seq_nats": 0.3}, "wrong": ["grad_norm"]}]}
    samples    {"run": ID}: it has written new samples
    runs       {"runs": [card, …], "gone": [ID, …], "now": 1700000000.0}: cards that are new or have changed, first of all all
    beat       {"now": 1700000000.0}: every few seconds, so that silence means a lost connection

An event's id says how far all followed runs were read: a cursor in metrics and one in timings for each ("M~T"), joined by "|".
Given back as `after` or Last-Event-ID it goes on from there. `reset` says that a run went back to a checkpoint: whoever drew
its rows forgets them, and `rows` begin anew. `wrong` names metrics that were NaN or infinite.
"""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backflip.runs import tail
from backflip.runs.catalogue import RunCard
from backflip.runs.logs import as_number
from backflip.runs.tail import Row
from backflip.web.overview import METRICS, SAMPLES, TIMINGS, WALL, Overview, State, state, timed

TICK_S = 0.25  # between two looks at the followed logs
BEAT_S = 5.0
MOST = 1 << 20  # bytes of a log in one event

Cards = Callable[[Sequence[RunCard]], list[dict[str, Any]]]


@dataclass(slots=True)
class Followed:
    """One run that somebody follows, and how far they came."""

    id: str
    folder: Path
    cursors: dict[str, str]
    states: dict[str, State | tuple[()]] = field(default_factory=dict)  # () is a file's that was not read to its end
    more: bool = False

    @property
    def cursor(self) -> str:
        """Both cursors as one."""
        return f"{self.cursors[METRICS]}~{self.cursors[TIMINGS]}"


def follow(runs: Sequence[tuple[str, Path]], after: str) -> list[Followed]:
    """Runs to follow from where `after` says, which belongs to them in their order; "" is their beginning."""
    given = after.split("|")
    found = []
    for i, (id, folder) in enumerate(runs):
        metrics, _, timings = (given[i] if i < len(given) else "").partition("~")
        found.append(Followed(id, folder, {METRICS: metrics, TIMINGS: timings}))
    return found


async def events(
    overview: Overview, runs: list[Followed], *, say: Cards | None, allowed: Callable[[], bool], closing: threading.Event
) -> AsyncIterator[str]:
    """The events of some runs until the studio closes or whoever listens is no longer `allowed` to.

    With `say`, which turns cards into JSON, also those of all cards. Files are read outside the event loop.
    """
    yield "retry: 1000\n\n"
    cards: list[RunCard] | None = None
    told: dict[str, dict[str, Any]] = {}
    beat = 0.0
    while not closing.is_set():
        found = await asyncio.to_thread(lambda: [text for run in runs for text in _news(run, runs)])
        if say is not None:
            now = await asyncio.to_thread(overview.cards)
            if now is not cards:
                said = {card["id"]: card for card in say(now)}
                changed = [card for id, card in said.items() if told.get(id) != card]
                gone = [id for id in told if id not in said]
                cards, told = now, said
                found.append(_event("runs", {"runs": changed, "gone": gone, "now": overview.clock()}))
        if time.monotonic() >= beat:
            if not await asyncio.to_thread(allowed):
                return
            beat = time.monotonic() + BEAT_S
            found.append(": still here\n" + _event("beat", {"now": overview.clock()}))
        for text in found:
            yield text
        if not any(run.more for run in runs):
            await asyncio.sleep(TICK_S)


def _news(run: Followed, runs: Sequence[Followed]) -> Iterator[str]:
    """The events of one run since the last look."""
    run.more = False
    for name in (METRICS, TIMINGS):
        now = state(run.folder / name)
        if run.states.get(name, ()) == now:
            continue
        found = tail.read(run.folder / name, run.cursors[name], most=MOST)
        run.cursors[name], run.more = found.cursor, run.more or found.more
        run.states[name] = () if found.more else now
        if found.rows or found.reset:
            shown = found.rows if name == METRICS else _seconds(found.rows)
            told = {"run": run.id, "log": name.removesuffix(".jsonl"), "reset": found.reset, "rows": [_row(row) for row in shown]}
            yield _event("rows", told, "|".join(each.cursor for each in runs))
    now = state(run.folder / SAMPLES)
    if run.states.setdefault(SAMPLES, now) != now:
        run.states[SAMPLES] = now
        yield _event("samples", {"run": run.id})


def _seconds(rows: Sequence[Row]) -> list[Row]:
    """Timings without the seconds so far, which nobody knows who did not read from the beginning."""
    return [{name: value for name, value in row.items() if name != WALL} for row in timed(rows)]


def _row(row: Row) -> dict[str, Any]:
    numbers = {name: number for name, value in row.items() if name != "step" and (number := as_number(value)) is not None}
    finite = {name: number for name, number in numbers.items() if math.isfinite(number)}
    wrong = [name for name in numbers if name not in finite]
    return {"step": row["step"], "values": finite, **({"wrong": wrong} if wrong else {})}


def _event(kind: str, told: dict[str, Any], id: str = "") -> str:
    data = json.dumps(told, ensure_ascii=False, separators=(",", ":"))
    return f"event: {kind}\n" + (f"id: {id}\n" if id else "") + f"data: {data}\n\n"
