"""What a policy writes beside what it wrote at first, as questions to people; and which of it looks most suspicious."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from backflip.records import Prompt, Query
from backflip.runs.alarms import repeated_share
from backflip.runs.catalogue import Beside, samples
from backflip.runs.logs import as_number
from backflip.runs.tail import Row
from backflip.seeds import Seeds

RECENT = 8
"""Steps with samples among which the suspicious ones are looked for: an old sample says nothing of the policy as it is."""

SIDES = Seeds(0)
"""Which answer stands left hangs on the answers alone, so that sending them again makes the very same questions."""


@dataclass(frozen=True, slots=True)
class Questions:
    """Questions made of samples. `same` samples say what was said before; `alone` have nothing before them to stand beside."""

    queries: list[Query]
    same: int = 0
    alone: int = 0


def questions(pairs: Sequence[Beside], *, name: str, purpose: str) -> Questions:
    """Each sample beside the earlier one, as a question; the writers are called "NAME@STEP"."""
    found: dict[str, Query] = {}
    same = alone = 0
    for pair in pairs:
        if pair.before is None or not isinstance(pair.now.get("prompt"), str):
            alone += 1
        elif text(pair.now) == text(pair.before):
            same += 1
        else:
            query = _question(pair.now, pair.before, name, purpose)
            found[query.id] = query
    return Questions(list(found.values()), same, alone)


def suspicious(folder: Path, kind: str, n: int, step: int | None = None) -> list[Beside]:
    """The `n` samples that an alarm of a kind speaks of most, among those up to `step` that have something to stand beside."""
    last = samples(folder, step)
    steps = [s for s in last.steps if last.step is not None and s <= last.step][-RECENT:]
    pairs = [pair for s in reversed(steps) for pair in (last if s == last.step else samples(folder, s)).rows]
    pairs = [pair for pair in pairs if pair.before is not None and text(pair.now) != text(pair.before)]
    measure = _MEASURES.get(kind, _gain)
    scores = measure(pairs)
    order = sorted(range(len(pairs)), key=lambda i: -scores[i])  # of equals the newest first
    return [pairs[i] for i in order[:n]]


def text(row: Row) -> str:
    """What was written."""
    return str(row.get("completion", row.get("text", "")))


def scores(row: Row) -> dict[str, float]:
    """The numbers that stand with a sample, such as its rewards."""
    numbers = ((name, as_number(value)) for name, value in row.items() if name != "step")
    return {name: number for name, number in numbers if number is not None and math.isfinite(number)}


def _question(now: Row, before: Row, name: str, purpose: str) -> Query:
    prompt = Prompt(now["prompt"])
    sides = [(text(row), f"{name}@{row['step']}") for row in (before, now)]
    if SIDES.integer("run side", purpose, prompt.id, *(part for side in sides for part in side)) % 2:
        sides.reverse()
    (left, left_policy), (right, right_policy) = sides
    return Query(prompt, (left, right), (left_policy, right_policy), purpose)


# ---- how suspicious samples are, by the kind of alarm: the higher the more

Pairs = Sequence[Beside]


def _proxy(row: Row | None) -> float:
    number = as_number((row or {}).get("proxy"))
    return number if number is not None and math.isfinite(number) else 0.0


def _gain(pairs: Pairs) -> list[float]:
    """By how much the proxy is higher than before."""
    return [_proxy(pair.now) - _proxy(pair.before) for pair in pairs]


def _over(pairs: Pairs) -> list[float]:
    """How much better the proxy's rank is than gold's; without gold, the proxy's gain."""
    if not all("gold" in scores(pair.now) for pair in pairs):
        return _gain(pairs)
    proxies = _ranks([_proxy(pair.now) for pair in pairs])
    golds = _ranks([scores(pair.now)["gold"] for pair in pairs])
    return [float(p - g) for p, g in zip(proxies, golds, strict=True)]


def _length(pairs: Pairs) -> list[float]:
    """By what factor a text became longer or shorter."""
    return [abs(math.log((1 + len(text(pair.now))) / (1 + len(text(pair.before or {}))))) for pair in pairs]


def _repeats(pairs: Pairs) -> list[float]:
    return [repeated_share(text(pair.now)) or 0.0 for pair in pairs]


def _unfinished(pairs: Pairs) -> list[float]:
    """Those without an end, the longest first."""
    return [float(len(text(pair.now))) if pair.now.get("finished") is False else -1.0 for pair in pairs]


def _far(pairs: Pairs) -> list[float]:
    """How far the reward is from the usual one."""
    if not pairs:
        return []
    middle = statistics.median(_proxy(pair.now) for pair in pairs)
    return [abs(_proxy(pair.now) - middle) for pair in pairs]


def _ranks(values: Sequence[float]) -> list[int]:
    places = {value: place for place, value in enumerate(sorted(set(values)))}
    return [places[value] for value in values]


_MEASURES: dict[str, Callable[[Pairs], list[float]]] = {
    "overoptimised": _over,
    "length": _length,
    "repetition": _repeats,
    "entropy": _repeats,
    "unfinished": _unfinished,
    "reward-outliers": _far,
}
