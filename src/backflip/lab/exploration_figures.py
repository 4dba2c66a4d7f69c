"""What is counted in `exploration`: pass@k before and after, and where the two curves cross."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from backflip.lab.many_tries import as_curve, difference, doublings, pass_at_k
from backflip.records import Sample
from backflip.worlds.arithmetic import read


def counted(groups: Sequence[Sequence[Sample]]) -> dict[str, Any]:
    """Of the completions of some problems: how many of each are right, and of all the entropy, the length and the format.

    The entropy is that of the next-token distribution in nats, estimated by the mean of −log π over the tokens that were drawn
    from it. A completion that was cut off is wrong.
    """
    samples = [s for group in groups for s in group]
    logps = [logp for s in samples for logp in s.logps]
    return {
        "right": [sum(s.finished and read(s.text).answer == s.prompt.columns["answer"] for s in group) for group in groups],
        "tries": len(groups[0]),
        "entropy": -sum(logps) / len(logps),
        "length": sum(s.n_tokens for s in samples) / len(samples),
        "format": sum(s.finished and read(s.text).well_formed for s in samples) / len(samples),
    }


def passes(measured: dict[str, Any]) -> list[list[float]]:
    """pass@k of every problem, a row each, for k = 1, 2, 4, … up to the tries."""
    ks = doublings(measured["tries"])
    return [[pass_at_k(measured["tries"], c, k) for k in ks] for c in measured["right"]]


def compared(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """pass@k after a run; what it gained at every k over the same problems before it, with its 95 % interval; the k where the
    curves cross, if any, and whether a loss at some k is beyond chance."""
    ks = doublings(after["tries"])
    old, new = passes(before), passes(after)
    gains = [[a - b for a, b in zip(now, was, strict=True)] for now, was in zip(new, old, strict=True)]
    points = [difference(column) for column in zip(*gains, strict=True)]
    gain = {name: [point[name] for point in points] for name in ("value", "low", "high")}
    return {
        "curve": as_curve(ks, new), "gain": gain, "crossing": crossing(ks, gain["value"]),
        "lost": any(high < 0 for high in gain["high"]),
    }  # fmt: skip


def crossing(ks: Sequence[int], gains: Sequence[float]) -> float | None:
    """The first k where the gain turns negative, between two measured ones by a straight line over log₂ k; None for never.

    >>> crossing([1, 4, 16], [0.2, 0.1, -0.1])
    8.0
    """
    for i, gain in enumerate(gains):
        if gain >= 0:
            continue
        if i == 0:
            return float(ks[0])
        share = gains[i - 1] / (gains[i - 1] - gain)
        return 2 ** (math.log2(ks[i - 1]) + share * (math.log2(ks[i]) - math.log2(ks[i - 1])))
    return None
