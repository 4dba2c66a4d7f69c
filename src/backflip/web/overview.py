"""What the studio knows of its runs: cards, logs and alarms, each read again only when its files have changed.

Pages ask often and many at once, and a run may be writing all the while. So a look at the folder is shared by whoever asks
within a second, a log that grew is read from where it ended, and alarms are not taken more often than they cost.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from backflip.errors import DataError
from backflip.runs import tail
from backflip.runs.alarms import Alarm
from backflip.runs.alarms import alarms as take_alarms
from backflip.runs.catalogue import RunCard, find, folders, lookup
from backflip.runs.control import NAME as CONTROL
from backflip.runs.control import PAUSED
from backflip.runs.curves import POINTS, Line, series
from backflip.runs.limits import SILENT, SILENT_AT_LEAST_S
from backflip.runs.lock import held
from backflip.runs.logs import as_number
from backflip.runs.tail import Row

METRICS, TIMINGS, SAMPLES = "metrics.jsonl", "timings.jsonl", "samples.jsonl"
WALL, TOTAL, PART = "wall", "timings/total", "timings/"
"""What the seconds of a run are called among its metrics: all so far, those of a step, and those of a step's parts."""
LABELS = "labels"
"""The metric in which a run logs how many labels it has learned from, where it does."""

FRESH_S = 1.0  # how long a look at all runs is good for; longer where it takes longer than a tenth of that
MOST_BYTES = 64 * 2**20  # of log text that is kept parsed; parsed it takes about three times as much
MOST_SAID = 32 * 2**20  # characters of lines that are kept as they are sent
SPARED = 20.0  # alarms of a growing run are taken after this many times what they cost

State = tuple[int, int, int] | None
_SEEN = ("run.json", METRICS, TIMINGS, SAMPLES, "result.json", "checkpoints", CONTROL, PAUSED, "feedback.db", "feedback.db-wal")
"""The files of a run that its card speaks of; besides them it says whether somebody holds its lock."""


class Overview:
    """The runs below a folder. Every method may be called from any thread, and reads files."""

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.root, self.clock = root, clock
        self._lock = threading.Lock()
        self._cards: list[RunCard] = []
        self._states: Mapping[str, object] = {}
        self._until = 0.0
        self._logs = _Logs()
        self._said = _Texts()
        self._alarms: dict[Path, tuple[object, float, list[Alarm]]] = {}

    # ----------------------------------------------------------------------------------------------------------- cards

    def cards(self) -> list[RunCard]:
        """All runs there are; the same list again while nobody has looked anew or nothing has changed."""
        with self._lock:
            began = time.monotonic()
            if began >= self._until:
                self._look()
                ended = time.monotonic()
                self._until = ended + max(FRESH_S, 10 * (ended - began))
            return self._cards

    def _look(self) -> None:
        """Look at all runs, and read those that have changed since; most are finished and never do."""
        there = folders(self.root)
        now = {id: (held(folder), *(state(folder / name) for name in _SEEN)) for id, folder in there.items()}
        changed = {id for id in now if now[id] != self._states.get(id)}
        if changed or len(now) != len(self._states):
            known = {card.id: card for card in self._cards}
            if len(changed) * 4 > len(now) or now.keys() != known.keys():
                self._cards = find(self.root)
            else:
                # What a stage writes, the run it is part of has written too.
                above = {id for id in now if any(each.startswith(f"{id}/") or id == "." for each in changed)}
                known |= {card.id: card for id in changed | above if (card := self.card(id)) is not None}
                self._cards = [known[id] for id in now]
            self._states = now

    def folder(self, id: str) -> Path | None:
        """The folder of a run that was found; an id is compared, and never becomes a path."""
        known = next((card.folder for card in self._cards if card.id == id), None)
        if known is not None and state(known / "run.json") is not None:
            return known
        return folders(self.root).get(id)

    def card(self, id: str) -> RunCard | None:
        """The card of a run as it is now."""
        try:
            return lookup(self.root, id)
        except DataError:
            return None

    def name(self, id: str) -> str:
        """What a run is called: its id, or the folder's name where the folder is itself a run."""
        return self.root.resolve().name if id == "." else id

    # ----------------------------------------------------------------------------------------------------------- lines

    def metric_names(self, folder: Path) -> list[str]:
        """Everything that `lines` can draw of a run, seconds last."""
        parts = self._logs.read(folder / TIMINGS).names
        return [*self._logs.read(folder / METRICS).names, *(PART + name for name in parts), *((TOTAL, WALL) if parts else ())]

    def lines(
        self, folder: Path, names: Sequence[str] | None, points: int = POINTS, *, say: Callable[[Line], str], how: str = ""
    ) -> tuple[dict[str, str], str]:
        """The lines of these metrics (None: of all) in the words of `say`, and the cursor to follow them from (`web.stream`).

        What was said is kept while the logs stay as they are; `how` names what `say` does.
        """
        wanted = self.metric_names(folder) if names is None else list(dict.fromkeys(names))
        metrics, timings = (self._logs.read(folder / name) for name in (METRICS, TIMINGS))
        cursor = f"{metrics.cursor}~{timings.cursor}"
        said = {name: self._said.get((folder, cursor, name, points, how)) for name in wanted}
        missing = [name for name, text in said.items() if text is None]
        times = [name for name in missing if name == WALL or name.startswith(PART)]
        drawn = series(metrics.rows, [name for name in missing if name not in times], points)
        drawn |= series(timed(timings.rows), times, points) if times else {}
        for name, line in drawn.items():
            said[name] = say(line)
            self._said.put((folder, cursor, name, points, how), said[name] or "")
        return {name: text or "" for name, text in said.items()}, cursor

    def axis(self, folder: Path, x: str) -> Mapping[int, float]:
        """Where each step stands on another axis: the seconds of training so far, or the labels learned from."""
        if x == WALL:
            return {row["step"]: row[WALL] for row in timed(self._logs.read(folder / TIMINGS).rows)}
        rows = ((row["step"], as_number(row.get(LABELS))) for row in self._logs.read(folder / METRICS).rows)
        return {step: number for step, number in rows if number is not None and abs(number) < sys.float_info.max}

    # ---------------------------------------------------------------------------------------------------------- alarms

    def alarms(self, card: RunCard) -> list[Alarm]:
        """What a person should look at, the gravest first."""
        folder, now = card.folder, time.monotonic()
        states = tuple(state(folder / name) for name in (METRICS, SAMPLES))
        known, due, found = self._alarms.get(folder, (None, 0.0, []))
        rows = self._logs.read(folder / METRICS).rows
        if states != known and (known is None or now >= due):
            found = take_alarms(rows, card.settings, samples=self._logs.read(folder / SAMPLES).rows)
            ended = time.monotonic()
            if len(self._alarms) > 1000:
                self._alarms.clear()
            self._alarms[folder] = (states, ended + SPARED * (ended - now), found)
        if card.state != "running":
            return found
        late = take_alarms(rows[-1:], {}, now=self.clock(), last_write=card.last_write, interval=card.interval)
        both = [*found, *(alarm for alarm in late if alarm.kind == "silent")]
        return sorted(both, key=lambda alarm: ("error", "warn", "info").index(alarm.level))


def silent_after(card: RunCard) -> float | None:
    """After how many seconds without a line a running run counts as silent; None while that is not known."""
    if card.state != "running" or card.interval is None:
        return None
    return max(SILENT * card.interval, SILENT_AT_LEAST_S)


def timed(rows: Iterable[Row]) -> list[Row]:
    """Rows of timings as metrics: the parts of each step, their sum, and the seconds of all steps so far.

    >>> timed([{"step": 1, "rollout": 2.0, "update": 1.0}, {"step": 2, "rollout": 2.5, "update": 1.0}])[1]
    {'step': 2, 'timings/rollout': 2.5, 'timings/update': 1.0, 'timings/total': 3.5, 'wall': 6.5}
    """
    wall, found = 0.0, []
    for row in rows:
        parts = {f"{PART}{name}": float(value) for name, value in row.items() if name != "step" and _seconds(value)}
        total = sum(parts.values())
        wall += total
        found.append({"step": row["step"], **parts, TOTAL: total, WALL: wall})
    return found


def state(path: Path) -> State:
    """What changes when a file does; None where there is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _seconds(value: object) -> bool:
    number = as_number(value)
    return number is not None and 0 <= number < 1e9


# --------------------------------------------------------------------------------------------------------- what is kept


@dataclass(frozen=True, slots=True)
class _Log:
    """A log as it was read: its rows, not to be changed, the names of the numbers in them, and the cursor behind them."""

    state: State = None
    cursor: str = ""
    rows: Sequence[Row] = ()
    names: Sequence[str] = ()

    @property
    def bytes(self) -> int:
        return int(self.cursor.partition("-")[0] or 0)


class _Logs:
    """Parsed logs, those that were not asked for longest forgotten first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[Path, _Log] = OrderedDict()

    def read(self, path: Path) -> _Log:
        now = state(path)
        with self._lock:
            log = self._known.get(path, _Log())
            if path in self._known:
                self._known.move_to_end(path)
        if log.state != now or now is None:
            log = _read_on(path, log, now)
            with self._lock:
                self._known[path] = log
                self._known.move_to_end(path)
                total = sum(each.bytes for each in self._known.values())
                while total > MOST_BYTES and len(self._known) > 1:
                    total -= self._known.popitem(last=False)[1].bytes
        return log


def _read_on(path: Path, log: _Log, now: State) -> _Log:
    """What a log holds now. Rows are added to a new list, for others may be reading the old one."""
    rows, cursor, names = list(log.rows), log.cursor, dict.fromkeys(log.names)
    while True:
        found = tail.read(path, cursor)
        if found.reset:
            rows, names = [], {}
        # A name that stands in every row is kept once: it would take more room than its numbers.
        rows += [{sys.intern(name): value for name, value in row.items()} for row in found.rows]
        for row in found.rows:
            if not row.keys() <= names.keys() | {"step"}:
                names |= {name: None for name, value in row.items() if name != "step" and as_number(value) is not None}
        cursor = found.cursor
        if not found.more:
            return _Log(now, cursor, rows, list(names))


class _Texts:
    """Texts by what they say, those that were not asked for longest forgotten first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[object, str] = OrderedDict()
        self._size = 0

    def get(self, key: object) -> str | None:
        with self._lock:
            text = self._known.get(key)
            if text is not None:
                self._known.move_to_end(key)
            return text

    def put(self, key: object, text: str) -> None:
        with self._lock:
            self._size += len(text) - len(self._known.pop(key, ""))
            self._known[key] = text
            while self._size > MOST_SAID:
                self._size -= len(self._known.popitem(last=False)[1])
