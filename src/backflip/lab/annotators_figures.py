"""What is read off the seeds of `annotators`: points gained, and how many questions a rule needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def gain(seed: dict[str, Any], group: str) -> float:
    """By how many points heads pooled in part are right more often than one model of all."""
    accuracy = seed["whose"]["accuracy"]
    return 100 * float(accuracy["own head, pooled in part"][group] - accuracy["one model of all"][group])


def needed(questions: Sequence[float], accuracy: Sequence[float], goal: float) -> float | None:
    """How many questions a curve needs to reach an accuracy, along a line between the points; None where it never does.

    >>> needed([100, 200], [0.6, 0.8], 0.7)
    150.0
    """
    before: tuple[float, float] | None = None
    for n, value in zip(questions, accuracy, strict=True):
        if value >= goal:
            if before is None:
                return float(n)
            share = (goal - before[1]) / (value - before[1])
            return float(before[0] + share * (n - before[0]))
        before = (n, value)
    return None


def mean_curves(seeds: Sequence[dict[str, Any]]) -> tuple[list[float], dict[str, list[float]]]:
    """The curve of each rule, mean over seeds."""
    curves = {
        rule: [sum(each) / len(seeds) for each in zip(*(s["asking"]["accuracy"][rule] for s in seeds), strict=True)]
        for rule in seeds[0]["asking"]["accuracy"]
    }
    return seeds[0]["asking"]["questions"], curves


def shares_needed(seeds: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Of each rule but random: the share of random's questions with which its mean curve reaches random's final accuracy."""
    questions, curves = mean_curves(seeds)
    found = {rule: needed(questions, curve, curves["random"][-1]) for rule, curve in curves.items() if rule != "random"}
    return {rule: None if n is None else n / questions[-1] for rule, n in found.items()}
