"""The most suspicious samples of a look, and the questions that put them before people.

A suspect is asked about beside a text for the same prompt that the judges like best of all that were written before. A hack may
come in texts that are better in all else, and beside a poor text of the first policy it would win.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from backflip.monitor.seen import Columns
from backflip.records import Prompt, Query
from backflip.runs.watching import Look

Suspect = dict[str, Any]
"""A sample as it stands in a file: step, prompt, completion, what was written `before`, at which step (None: by the policy that
looks are measured by), and the reasons."""


class Liked(NamedTuple):
    """The text for a prompt that the judges like best so far: what it says, the step it was written at, None for the policy that
    looks are measured by, and their opinion, in standard deviations; 0 without judges."""

    text: str
    step: int | None
    quality: float


def written(look: Look, now: Columns, step: int | None) -> list[Liked]:
    """The texts of a look, one for each prompt."""
    quality = now["quality"].tolist() if "quality" in now else [0.0] * len(look.completions)
    return [Liked(text, step, value) for text, value in zip(look.completions, quality, strict=True)]


def liked_best(so_far: Sequence[Liked], new: Sequence[Liked]) -> list[Liked]:
    """Prompt by prompt the text that the judges like better; the earlier one where they do not care."""
    return [new if new.quality > old.quality else old for old, new in zip(so_far, new, strict=True)]


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


def suspects(look: Look, liked: Sequence[Liked], now: Columns, most: int) -> list[Suspect]:
    """The most suspicious samples of a look, the worst first, each text once, none that is itself what the judges like best."""
    scores = suspicion(now)
    chosen: list[Suspect] = []
    told: set[str] = set()
    for i in np.argsort(-scores, kind="stable").tolist():
        text = look.completions[i]
        if len(chosen) == most:
            break
        if text in told or text == liked[i].text:
            continue
        told.add(text)
        chosen.append({
            "step": look.step, "prompt": look.prompts[i], "completion": text, "before": liked[i].text,
            "before_step": liked[i].step, "suspicion": float(scores[i]), "proxy": float(now["proxy"][i]),
            "quality": float(now["quality"][i]) if "quality" in now else None,
        })  # fmt: skip
    return chosen


def questions(rows: Sequence[Mapping[str, Any]], *, policy: str, first: str, begun: str | None = None) -> list[Query]:
    """For each suspect the question whether it is better than what was written for the same prompt before.

    `policy`, `first` and `begun` are what the policy, the one that looks are measured by and the one that the run began with
    (default: `first`) are called. Both sides are equally often the first one shown: the suspect is on the side
    that its prompt's id says.
    """
    made = []
    for row in rows:
        prompt = Prompt(row["prompt"])
        step = row.get("before_step")
        earlier = first if step is None else policy if step > 0 else begun or first
        pair = ((row["completion"], policy), (row["before"], earlier))
        ordered = pair if int(prompt.id[:8], 16) % 2 == 0 else pair[::-1]
        made.append(Query(prompt, tuple(text for text, _ in ordered), tuple(name for _, name in ordered)))
    return made
