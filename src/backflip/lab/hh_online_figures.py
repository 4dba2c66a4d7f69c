"""The figures of `hh-online`: a line in √KL up to its bend, and how far a train and a test preference model part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from backflip.lab.guard_recorder import Seen
from backflip.maths.calibration import calibration_bins
from backflip.maths.sequential import paired
from backflip.monitor.signals import scale_of

LEAST = 4
"""Fewest points on which a line is fitted."""


class Law(NamedTuple):
    """score = intercept + slope·√KL on the points up to `bend`, and how much of their variance that explains."""

    intercept: float
    slope: float
    r2: float
    bend: float


def law(root_kl_N: ArrayLike, score_N: ArrayLike) -> Law:
    """The line of Bai et al. 2022, section 4.3, up to where the curve bends down.

    The bend is the point x₀ with the least squared error of score = a + b·x + c·max(0, x − x₀), c < 0; where there is none, the
    last point. At least `LEAST` points lie before it. Raises ValueError for fewer points than that, or of one place.

    >>> law([0, 1, 2, 3, 4], [1, 3, 5, 7, 9])
    Law(intercept=1.0, slope=2.0, r2=1.0, bend=4.0)
    """
    x, y = np.asarray(root_kl_N, dtype=np.float64), np.asarray(score_N, dtype=np.float64)
    if x.shape != y.shape or len(x) < LEAST or float(np.ptp(x)) == 0.0:
        raise ValueError(f"a line needs at least {LEAST} points of different √KL, one score each")
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    best, end = _squares(_line(x), y)[1], len(x)
    for i in range(LEAST - 1, len(x) - 1):
        beta, error = _squares(np.column_stack([_line(x), np.maximum(0.0, x - x[i])]), y)
        if beta[2] < 0 and error < best - 1e-9 * float(y @ y):
            best, end = error, i + 1
    x, y = x[:end], y[:end]
    (intercept, slope), error = _squares(_line(x), y)
    spread = float(np.sum((y - y.mean()) ** 2))
    r2 = 1.0 - error / spread if spread > 0 else 0.0
    return Law(*(round(float(v), 12) for v in (intercept, slope, r2, x[-1])))


def curve(seen: Sequence[Seen]) -> dict[str, list[float]]:
    """A run look by look: √KL in nats per sequence, what train and test model say in standard deviations of their scores of the
    first look, the difference of both with its standard error over prompts, and gold."""
    first = seen[0].look
    train, test = scale_of(first.proxy), scale_of(first.judges["test"])
    rows = [(train.of(s.look.proxy), test.of(s.look.judges["test"])) for s in seen]
    gaps = [paired(a, b) for a, b in rows]
    return {
        "step": [float(s.look.step) for s in seen],
        "root kl": [math.sqrt(max(0.0, math.fsum(s.look.kl) / len(s.look.kl))) for s in seen],
        "train": [float(a.mean()) for a, _ in rows],
        "test": [float(b.mean()) for _, b in rows],
        "gap": [gap.mean for gap in gaps],
        "error": [gap.error for gap in gaps],
        "gold": [s.worth for s in seen],
    }


class Gap(NamedTuple):
    """How far the test model has fallen behind, in standard deviations, with its standard error, and the KL it stands at."""

    mean: float
    error: float
    kl: float


def gaps(curves: Sequence[dict[str, list[float]]]) -> list[Gap]:
    """The gap of each run at the highest KL that all of them reach: at the last look before each run first exceeds it."""
    reach = min(max(c["root kl"]) for c in curves)
    found = []
    for c in curves:
        past = next((i for i, d in enumerate(c["root kl"]) if d > reach), len(c["root kl"]))
        i = max(range(max(1, past)), key=lambda j: c["root kl"][j])
        found.append(Gap(c["gap"][i], c["error"][i], c["root kl"][i] ** 2))
    return found


def calibration_error(gap_N: ArrayLike, p_N: ArrayLike, bins: int = 10) -> float:
    """The expected calibration error: mean over comparisons of |σ(gap) − p| between the means of equal bins of prediction.

    >>> calibration_error([0.0, 0.0], [1.0, 0.0])
    0.0
    """
    found = calibration_bins(gap_N, p_N, bins=bins)
    return sum(b.n * abs(b.predicted - b.observed) for b in found) / sum(b.n for b in found)


def elo(share: float, n: int) -> float:
    """The Elo points of a win rate over n comparisons, 400·log₁₀(p / (1 − p)); half a comparison is added to either side, so
    that it is finite.

    >>> round(elo(0.5, 10)), round(elo(10 / 11, 10**9))
    (0, 400)
    """
    won = (share * n + 0.5) / (n + 1)
    return 400.0 * math.log10(won / (1.0 - won))


def slopes_apart(slopes: Sequence[float]) -> float:
    """The difference between the steepest and the flattest slope as a share of their mean.

    >>> slopes_apart([1.0, 1.5])
    0.4
    """
    return (max(slopes) - min(slopes)) / abs(math.fsum(slopes) / len(slopes))


def _line(x: Any) -> Any:
    return np.column_stack([np.ones_like(x), x])


def _squares(columns: Any, y: Any) -> tuple[Any, float]:
    beta = np.linalg.lstsq(columns, y, rcond=None)[0]
    return beta, float(np.sum((y - columns @ beta) ** 2))
