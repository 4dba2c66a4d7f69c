"""The figures of `reward-models`: slopes, intervals over seeds, what over-fits, what falls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from backflip.lab.seeds import over_seeds


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean over seeds and its 95 % t-interval; of one seed the value alone.

    >>> interval([2.0])
    (2.0, 2.0, 2.0)
    """
    found = over_seeds(values)
    return (found.mean, *found.ends)


def doubling(rows: Sequence[Mapping[str, Any]], by: str) -> float:
    """By how much accuracy rises with a doubling: the slope of a straight line over log₂.

    >>> doubling([{"n": 1, "accuracy": 0.5}, {"n": 4, "accuracy": 0.7}], "n")
    0.1
    """
    xs = [math.log2(row[by]) for row in rows]
    slope, _ = np.polyfit(xs, [row["accuracy"] for row in rows], 1)
    return round(float(slope), 12)


def by_size(rows: Sequence[Mapping[str, Any]]) -> float:
    """By how much accuracy rises with a doubling of the parameters, the mean over the numbers of comparisons.

    >>> by_size([{"comparisons": n, "parameters": p, "accuracy": 0.1 * p} for n in (8, 9) for p in (1, 2)])
    0.1
    """
    counts = dict.fromkeys(row["comparisons"] for row in rows)
    slopes = [doubling([row for row in rows if row["comparisons"] == n], "parameters") for n in counts]
    return sum(slopes) / len(slopes)


def overfit(seed: Mapping[str, Any]) -> float:
    """By how many nats a comparison shuffled pairs end above all pairs together on what is held out."""
    ends = {way: seed["overfitting"][way]["figures"][-1]["log loss"] for way in ("pair", "question")}
    return float(ends["pair"] - ends["question"])


def fall(seed: Mapping[str, Any], labels: str, rule: str) -> float:
    """How much gold is lost from the best n to the largest one."""
    gold = seed["ensembles"][labels]["gold"][rule]
    return float(max(gold) - gold[-1])


def last(seed: Mapping[str, Any], labels: str, rule: str) -> float:
    """Gold at the largest n."""
    return float(seed["ensembles"][labels]["gold"][rule][-1])
