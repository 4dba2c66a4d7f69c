"""What is counted in `r1-zero`: right answers of one and of many tries, lengths, styles, and what reflection is worth."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from backflip.worlds.arithmetic.notation import Reading, Style, read, read_problem

STYLES: tuple[Style, ...] = ("direct", "short", "full", "other")


@dataclass(frozen=True, slots=True)
class Try:
    """One completion of a problem: its text read, whether it ended by itself, whether its answer is right, its tokens, and
    whether its scratchpad was right before anything was taken back."""

    reading: Reading
    finished: bool
    right: bool
    length: int
    draft_right: bool


def judged(problem: str, answer: str, text: str, *, finished: bool, length: int) -> Try:
    """A completion as it counts. One that was cut off is wrong, whatever it says."""
    found = read_problem(problem)
    if found is None:
        raise ValueError(f"{problem!r} is not a problem of this world")
    reading = read(text, found.task)
    return Try(reading, finished, finished and reading.answer == answer, length, reading.draft_is_right(found))


def majority_is_right(tries: Sequence[Try], answer: str) -> float:
    """maj@k: whether the commonest answer of these tries is right; of several equally common ones, the share that is.

    Tries without an answer do not vote.
    """
    votes = Counter(t.reading.answer for t in tries if t.finished and t.reading.answer is not None)
    if not votes:
        return 0.0
    most = max(votes.values())
    winners = [vote for vote, count in votes.items() if count == most]
    return float(answer in winners) / len(winners)


def summarize(groups: Sequence[tuple[str, Sequence[Try]]]) -> dict[str, Any]:
    """The figures of some problems, each given by its answer and the tries at it, equally many for each problem."""
    tries = [t for _, group in groups for t in group]
    n = len(tries)
    styles = {
        style: {
            "share": len(found) / n,
            "accuracy": sum(t.right for t in found) / len(found) if found else None,
            "length": sum(t.length for t in found) / len(found) if found else None,
        }
        for style in STYLES
        for found in [[t for t in tries if t.reading.style == style]]
    }
    return {
        "problems": len(groups),
        "samples": n,
        "pass@1": sum(t.right for t in tries) / n,
        "pass@k": sum(any(t.right for t in group) for _, group in groups) / len(groups),
        "maj@k": sum(majority_is_right(group, answer) for answer, group in groups) / len(groups),
        "k": n // len(groups),
        "length": sum(t.length for t in tries) / n,
        "format": sum(t.finished and t.reading.well_formed for t in tries) / n,
        "unfinished": sum(not t.finished for t in tries) / n,
        "styles": styles,
        "reflection": reflection(tries),
    }


@dataclass(frozen=True, slots=True)
class Cell:
    """Scratchpads of one kind: how many, and how many of them led to a right answer."""

    n: int
    right: int

    @classmethod
    def of(cls, tries: Iterable[Try]) -> Cell:
        """The cell of these tries."""
        found = [t.right for t in tries]
        return cls(len(found), sum(found))


def reflection(tries: Sequence[Try]) -> dict[str, Any]:
    """What `wait` goes along with, among completions with a scratchpad.

    `gain` is P(right | reflection) − P(right | none), each matched on whether the first draft was right: the difference within
    either kind of draft, weighted by how the reflecting ones are spread over the two; with `error`, its standard error. It is
    None where either side of a kind that counts is empty. `raw` is the same difference without matching.
    """
    pads = [t for t in tries if t.reading.style in ("short", "full")]
    cells = {
        f"{draft}, {kind}": Cell.of(t for t in pads if t.draft_right == is_right and bool(t.reading.reflections) == reflects)
        for draft, is_right in (("draft right", True), ("draft wrong", False))
        for kind, reflects in (("reflection", True), ("none", False))
    }
    with_wait = [t for t in tries if t.reading.reflections]
    matched = contrast(cells)
    return {
        "frequency": len(with_wait) / len(tries),
        "cells": {name: asdict(cell) for name, cell in cells.items()},
        "gain": None if matched is None else matched[0],
        "error": None if matched is None else matched[1],
        "raw": _raw(pads),
    }


def contrast(cells: Mapping[str, Cell]) -> tuple[float, float] | None:
    """The matched difference of `reflection` and its standard error, that of independent binomials with half a count added to
    each side so that 0 of 3 is not certain."""
    total = cells["draft right, reflection"].n + cells["draft wrong, reflection"].n
    gain = variance = 0.0
    for draft in ("draft right", "draft wrong"):
        on, off = cells[f"{draft}, reflection"], cells[f"{draft}, none"]
        if on.n == 0:
            continue
        if off.n == 0:
            return None
        weight = on.n / total
        gain += weight * (on.right / on.n - off.right / off.n)
        for cell in (on, off):
            p = (cell.right + 0.5) / (cell.n + 1)
            variance += weight**2 * p * (1 - p) / cell.n
    return (gain, math.sqrt(variance)) if total else None


def _raw(pads: Sequence[Try]) -> float | None:
    on, off = (Cell.of(t for t in pads if bool(t.reading.reflections) == kind) for kind in (True, False))
    return on.right / on.n - off.right / off.n if on.n and off.n else None
