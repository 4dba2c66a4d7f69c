"""When an arm of `active-loop` asks, how stale that makes its comparisons, and what staleness costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from backflip.lab.active_loop_settings import Arm

Seed = Mapping[str, Any]


def plan(arm: Arm, legs: int) -> dict[int, int]:
    """Before which legs an arm asks, and about the policy before which leg: 0 is the first policy. Raises ValueError where the
    portions cannot be spread evenly over the legs.

    >>> plan(Arm(portions=4, delay=1), 8)
    {0: 0, 2: 0, 4: 2, 6: 4}
    """
    if legs % arm.portions:
        raise ValueError(f"{arm.portions} portions cannot be spread evenly over {legs} legs")
    apart = legs // arm.portions
    return {leg: max(0, leg - arm.delay * apart) for leg in range(0, legs, apart)}


def ages(asked: Mapping[int, int], counts: Mapping[int, int], legs: int) -> list[float]:
    """Of each leg: how many policies old the texts are, on average, that its reward model learned from.

    `asked` is a plan and `counts` how many comparisons each portion gave. A policy is one leg of training.

    >>> ages({0: 0, 1: 1}, {0: 10, 1: 30}, 3)
    [0.0, 0.25, 1.25]
    """
    found = []
    for leg in range(legs):
        known = [before for before in asked if before <= leg]
        total = sum(counts[before] for before in known)
        found.append(sum(counts[before] * (leg - asked[before]) for before in known) / total)
    return found


def staleness(arm: Mapping[str, Any]) -> float:
    """How many policies old the compared texts were, on average over an arm's training."""
    values: list[float] = arm["ages"]
    return sum(values) / len(values)


def last(arm: Mapping[str, Any]) -> float:
    """Gold of an arm's last policy."""
    return float(arm["gold"])


def slope(seed: Seed, names: Sequence[str]) -> float:
    """Gold that is gained with each policy that the comparisons are older: a straight line over these arms by least squares.

    >>> slope({"arms": {"a": {"ages": [0.0, 2.0], "gold": 3.0}, "b": {"ages": [2.0, 4.0], "gold": 2.0}}}, ["a", "b"])
    -0.5
    """
    arms = [seed["arms"][name] for name in names]
    found, _ = np.polyfit([staleness(arm) for arm in arms], [last(arm) for arm in arms], 1)
    return round(float(found), 12)
