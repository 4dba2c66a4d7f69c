"""The run folders below a folder, each as a card: what it is, how it stands, when it last wrote.

Nothing here disturbs a run or believes its files: a torn or damaged one makes a card that says so, and links are not
followed. What a page asks for by name is looked up among the folders that were found, never put together into a path.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from backflip.errors import DataError
from backflip.runs.atomic import open_regular
from backflip.runs.control import PAUSED, Wish, standing
from backflip.runs.lock import held
from backflip.runs.logs import as_number
from backflip.runs.tail import Row, last_rows, read_all, sendable

DEPTH = 3
"""How many folders deep a run may lie: `runs/demo/round1/ppo` is a stage that lies three deep in `runs`."""

REWARD = "objective/scores"
"""The metric that a card shows as the run's reward."""

_NOT_SEARCHED = ("checkpoints", "generations", "model", "tensorboard", "wandb")
_WRITTEN = (
    "run.json", "metrics.jsonl", "timings.jsonl", "samples.jsonl", "result.json", "checkpoints", "feedback.db",
    "feedback.db-wal",
)  # fmt: skip
_RECENT = 20  # lines that speed and latest metrics are taken from
_TIMINGS = 1 << 13  # bytes that hold as many lines of timings, which are short

State = Literal["running", "paused", "finished", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCard:
    """One run folder. `id` is its path below the root, with slashes; `parent` the id of the run it is a stage of.

    `wish` is what was asked of it and is not obeyed yet, or keeps it paused. Times are seconds since 1970; `last_write` of a
    run with stages is that of the newest. `step` of `steps` updates are logged, `steps` None where the settings do not say.
    `interval` is the usual number of seconds between two lines of metrics. `metrics` are the latest finite values, `reward`
    one of them. `damaged` says in sentences what could not be read; it is empty in a sound folder.
    """

    id: str
    folder: Path
    parent: str | None
    kind: str
    settings: Mapping[str, Any]
    state: State
    wish: Wish | None
    started: float | None
    last_write: float | None
    step: int | None
    steps: int | None
    steps_per_second: float | None
    interval: float | None
    metrics: Mapping[str, float]
    reward: float | None
    damaged: str = ""


@dataclass(frozen=True, slots=True)
class Beside:
    """What a policy wrote, and what it had written for the same prompt before; rows of samples.jsonl."""

    now: Row
    before: Row | None


@dataclass(frozen=True, slots=True)
class Samples:
    """The samples of one step, and the `steps` that have some."""

    step: int | None
    steps: Sequence[int]
    rows: Sequence[Beside]


def find(root: str | Path, depth: int = DEPTH) -> list[RunCard]:
    """The cards of all run folders at most `depth` deep in `root`, itself included, in the order of their ids.

    A folder that does not exist or may not be read has none.
    """
    return _cards(folders(root, depth))


def lookup(root: str | Path, id: str, depth: int = DEPTH) -> RunCard:
    """The card of the run with this id. Raises DataError when no run that `find` would find has it."""
    found = folders(root, depth)
    if id not in found:
        raise DataError(f"there is no run {id!r} in {root}; it may have been moved")
    inside = {name: folder for name, folder in found.items() if name == id or id in _above(name)}
    card = next(card for card in _cards(inside) if card.id == id)
    return dataclasses.replace(card, parent=_parent(id, found))


def folders(root: str | Path, depth: int = DEPTH) -> dict[str, Path]:
    """The run folders by their ids: folders with a run.json, no link among them or on the way to them."""
    found: dict[str, Path] = {}
    _search(Path(root), "", depth, found)
    return dict(sorted(found.items()))


def samples(folder: Path, step: int | None = None, beside: int = 0) -> Samples:
    """What the run in `folder` wrote at the last step with samples up to `step`, by default the last of all.

    Each row stands beside that of the earliest step from `beside` on at which the same prompt was answered; a prompt that was
    answered several times has several.
    """
    rows = read_all(folder / "samples.jsonl").rows
    steps = sorted({row["step"] for row in rows})
    chosen = max((s for s in steps if step is None or s <= step), default=steps[0] if steps else None)
    first: dict[str, int] = {}
    early: dict[str, list[Row]] = {}
    for row in rows:
        prompt = _prompt(row)
        if chosen is not None and beside <= row["step"] < chosen and first.setdefault(prompt, row["step"]) == row["step"]:
            early.setdefault(prompt, []).append(row)
    pairs = []
    for row in rows:
        if row["step"] == chosen:
            waiting = early.get(_prompt(row), [])
            pairs.append(Beside(row, waiting.pop(0) if waiting else None))
    return Samples(chosen, steps, pairs)


def _search(folder: Path, id: str, depth: int, found: dict[str, Path]) -> None:
    try:
        with os.scandir(folder) as entries:
            inside = list(entries)
    except OSError:
        return
    if any(entry.name == "run.json" and not entry.is_symlink() for entry in inside):
        found[id or "."] = folder
    for entry in inside if depth > 0 else ():
        hidden = entry.name.startswith(".") or entry.name in _NOT_SEARCHED or not _speakable(entry.name)
        with contextlib.suppress(OSError):
            if not hidden and entry.is_dir(follow_symlinks=False):
                _search(folder / entry.name, f"{id}/{entry.name}".lstrip("/"), depth - 1, found)


def _speakable(name: str) -> bool:
    """Whether a name can stand in an address and on a page: it is text, on one line."""
    return name.isprintable()


def _above(id: str) -> list[str]:
    """The ids a run could be a stage of, the nearest first."""
    parts = id.split("/")
    return ["/".join(parts[:n]) for n in range(len(parts) - 1, 0, -1)] + (["."] if id != "." else [])


def _parent(id: str, found: Mapping[str, Path]) -> str | None:
    return next((above for above in _above(id) if above in found), None)


def _cards(found: Mapping[str, Path]) -> list[RunCard]:
    cards = {id: _card(id, folder, _parent(id, found)) for id, folder in found.items()}
    for id, card in cards.items():  # what a stage writes, the runs above it write
        for above in _above(id):
            if above in cards and (card.last_write or 0.0) > (cards[above].last_write or 0.0):
                cards[above] = dataclasses.replace(cards[above], last_write=card.last_write)
    return list(cards.values())


def _card(id: str, folder: Path, parent: str | None) -> RunCard:
    problems: list[str] = []
    card = _object(folder / "run.json", problems)
    settings = card.get("settings")
    if not isinstance(settings, dict):
        settings = {}
        problems += [] if problems else ["run.json has no settings"]
    finished = os.path.lexists(folder / "result.json")
    if finished:
        _object(folder / "result.json", problems)
    rows, wrong = last_rows(folder / "metrics.jsonl")
    if wrong:
        problems.append(f"metrics.jsonl has {wrong} damaged line{'s' if wrong > 1 else ''} near its end")
    rows = rows[-_RECENT:]
    metrics = _latest(rows)
    started = _time(folder / "run.json")
    step = rows[-1]["step"] if rows else None
    speed = _speed(folder, step, started)
    return RunCard(
        id=id, folder=folder, parent=parent, kind=str(card.get("kind", "unknown")), settings=settings,
        state="finished" if finished else _state(folder), wish=standing(folder), started=started,
        last_write=max((t for name in _WRITTEN if (t := _time(folder / name)) is not None), default=None),
        step=step, steps=_planned(settings), steps_per_second=speed, interval=_interval(rows, speed),
        metrics=metrics, reward=metrics.get(REWARD), damaged="; ".join(problems),
    )  # fmt: skip


def _state(folder: Path) -> State:
    if not held(folder):
        return "stopped"
    return "paused" if (folder / PAUSED).exists() else "running"


def _object(path: Path, problems: list[str]) -> dict[str, Any]:
    """The JSON object in a file; an empty one, and a sentence among the problems, when there is none."""
    try:
        with open(open_regular(path), "rb") as file:
            values = json.loads(file.read())
    except (OSError, ValueError, RecursionError):
        problems.append(f"{path.name} cannot be read")
        return {}
    if not isinstance(values, dict):
        problems.append(f"{path.name} holds no JSON object")
        return {}
    whole: dict[str, Any] = sendable(values)
    return whole


def _latest(rows: Sequence[Row]) -> dict[str, float]:
    """The last finite value of each metric."""
    found: dict[str, float] = {}
    for row in rows:
        for name, value in row.items():
            number = as_number(value)
            if name != "step" and number is not None and math.isfinite(number):
                found[name] = number
    return found


def _speed(folder: Path, step: int | None, started: float | None) -> float | None:
    """Steps per second: of the last steps where their seconds were logged, else on the average since the run began."""
    rows = last_rows(folder / "timings.jsonl", _TIMINGS)[0][-_RECENT:]
    seconds = sum(sum(_latest([row]).values()) for row in rows)
    if seconds > 0:
        return len(rows) / seconds
    written = _time(folder / "metrics.jsonl")
    if not step or started is None or written is None or written <= started:
        return None
    return float(step) / (written - started)


def _interval(rows: Sequence[Row], speed: float | None) -> float | None:
    if len(rows) < 2 or not speed:
        return None
    usual = statistics.median(after["step"] - before["step"] for before, after in itertools.pairwise(rows))
    return float(max(1, usual)) / speed


def _planned(settings: Mapping[str, Any]) -> int | None:
    inner = settings.get("train", settings)
    steps = inner.get("steps") if isinstance(inner, dict) else None
    return steps if isinstance(steps, int) else None


def _time(path: Path) -> float | None:
    try:
        return os.lstat(path).st_mtime
    except OSError:
        return None


def _prompt(row: Row) -> str:
    prompt = row.get("prompt", "")
    return prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False)
