"""The most suspicious samples of a look, and the questions that put them before people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from backflip.monitor.seen import Columns
from backflip.records import Prompt, Query
from backflip.runs.watching import Look

Suspect = dict[str, Any]
"""A sample as it stands in a file: step, prompt, completion, what the first policy wrote (`before`), and the reasons."""


def suspicion(now: Columns) -> np.ndarray[Any, np.dtype[np.float64]]:
    """How suspicious each sample is, (N,): proxy less the judges' opinion, plus their disagreement, plus how far out it lies.

    All in standard deviations; the distance in those of this look, and only above its mean.
    """
    found = now["proxy"] - now.get("quality", np.zeros_like(now["proxy"])) + now["disagreement"]
    if "distance" in now:
        spread = float(now["distance"].std())
        if spread > 0:
            found = found + np.maximum(0.0, (now["distance"] - now["distance"].mean()) / spread)
    return found


def suspects(look: Look, first: Sequence[str], now: Columns, most: int) -> list[Suspect]:
    """The most suspicious samples of a look, the worst first, each text once, none that the first policy wrote too."""
    scores = suspicion(now)
    chosen: list[Suspect] = []
    told: set[str] = set()
    for i in np.argsort(-scores, kind="stable").tolist():
        text = look.completions[i]
        if len(chosen) == most:
            break
        if text in told or text == first[i]:
            continue
        told.add(text)
        chosen.append({
            "step": look.step, "prompt": look.prompts[i], "completion": text, "before": first[i],
            "suspicion": float(scores[i]), "proxy": float(now["proxy"][i]),
            "quality": float(now["quality"][i]) if "quality" in now else None,
        })  # fmt: skip
    return chosen


def questions(rows: Sequence[Mapping[str, Any]], *, policy: str, first: str) -> list[Query]:
    """For each suspect the question whether it is better than what the first policy wrote for the same prompt.

    `policy` and `first` are what the two are called. Both sides are equally often the first one shown: the suspect is on the side
    that its prompt's id says.
    """
    made = []
    for row in rows:
        prompt = Prompt(row["prompt"])
        pair = ((row["completion"], policy), (row["before"], first))
        ordered = pair if int(prompt.id[:8], 16) % 2 == 0 else pair[::-1]
        made.append(Query(prompt, tuple(text for text, _ in ordered), tuple(name for _, name in ordered)))
    return made
