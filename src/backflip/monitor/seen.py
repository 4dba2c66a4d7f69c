"""One look as columns of numbers, measured in the scales of the first.

Legend: N samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from backflip.maths.calibration import Strangeness, strangeness, usual
from backflip.monitor.limits import OUTLYING_QUANTILE
from backflip.monitor.signals import (
    Floats,
    Scale,
    boilerplate,
    disagreement,
    distinct,
    language_drift,
    quality,
    scale_of,
    scripts,
)
from backflip.runs.alarms import repeated_share
from backflip.runs.watching import Look

Columns = dict[str, Floats]
"""Of each sample: proxy and quality (standard deviations of the first look), disagreement, kl (nats), length (tokens), unfinished
and repeated (shares), and, where there are vectors, distance."""


class Ruler:
    """What every look is measured by: the scales of proxy and judges, and the distribution of hidden states, all of the first.

    It is made of the first look and is the same whenever it is made again.
    """

    def __init__(self, first: Look, pessimism: float) -> None:
        self.pessimism = pessimism
        self.proxy = scale_of(first.proxy)
        self.judges: Mapping[str, Scale] = {name: scale_of(scores) for name, scores in first.judges.items()}
        self.usual: Strangeness | None = usual(first.vectors) if first.vectors is not None else None
        self.scripts = scripts(first.completions)
        self.far = float("inf")
        if self.usual is not None and first.vectors is not None:
            self.far = float(np.quantile(strangeness(first.vectors, self.usual), OUTLYING_QUANTILE))

    def columns(self, look: Look) -> Columns:
        """A look sample by sample."""
        proxy = self.proxy.of(look.proxy)
        judged = [scale.of(look.judges[name]) for name, scale in self.judges.items()]
        found: Columns = {
            "proxy": proxy,
            "disagreement": disagreement([proxy, *judged]),
            "kl": np.asarray(look.kl, dtype=np.float64),
            "length": np.asarray(look.lengths, dtype=np.float64),
            "unfinished": 1.0 - np.asarray(look.finished, dtype=np.float64),
            "repeated": np.array([repeated_share(text) or 0.0 for text in look.completions]),
        }
        if judged:
            found["quality"] = quality(judged, self.pessimism)
        if self.usual is not None and look.vectors is not None:
            found["distance"] = strangeness(look.vectors, self.usual)
        return found

    def figures(self, look: Look, columns: Columns) -> dict[str, float]:
        """A look as single numbers, for the log and the curves."""
        mean = {name: float(column.mean()) for name, column in columns.items()}
        found = {
            "guard/proxy": float(np.mean(look.proxy)), "guard/proxy_scaled": mean["proxy"],
            "guard/disagreement": mean["disagreement"],
            "guard/kl_seq_nats": mean["kl"], "guard/entropy": look.entropy, "guard/length": mean["length"],
            "guard/unfinished_share": mean["unfinished"], "guard/repeated_share": mean["repeated"],
            "guard/boilerplate": boilerplate(look.completions), "guard/distinct": distinct(look.completions),
            "guard/language_drift": language_drift(self.scripts, scripts(look.completions)),
        }  # fmt: skip
        if "quality" in mean:
            found["guard/quality"] = mean["quality"]
        if "distance" in columns:
            found["guard/outlying_share"] = float((columns["distance"] > self.far).mean())
        return found


def listed(columns: Columns) -> dict[str, list[float]]:
    """Columns as JSON."""
    return {name: column.tolist() for name, column in columns.items()}


def arrays(columns: Mapping[str, Sequence[float]]) -> Columns:
    """What `listed` gave."""
    return {name: np.asarray(column, dtype=np.float64) for name, column in columns.items()}


def to_json(look: Look) -> dict[str, Any]:
    """A look as JSON."""
    return {
        "step": look.step, "prompts": list(look.prompts), "completions": list(look.completions), "proxy": list(look.proxy),
        "kl": list(look.kl), "entropy": look.entropy, "lengths": list(look.lengths), "finished": list(look.finished),
        "judges": {name: list(scores) for name, scores in look.judges.items()},
        "vectors": None if look.vectors is None else [list(vector) for vector in look.vectors],
    }  # fmt: skip
