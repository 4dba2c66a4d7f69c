"""What a reward is to the rest of the house: a function of prompts and completions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

from backflip.errors import NonFiniteError, NumericsError
from backflip.records import Prompt


class RewardFunction(Protocol):
    """Scores for completions: one finite number each, higher is better.

    `prompts` are plain strings or message lists as in the data; `columns` are the other columns of the prompts' rows,
    each a list as long as `prompts`.
    """

    def __call__(self, prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[float]: ...


def score(reward: RewardFunction, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
    """Call a reward function on records.

    Columns missing from some rows are None there. Raises NonFiniteError when a score is not finite, NumericsError when one is
    missing.
    """
    names = sorted({name for prompt in prompts for name in prompt.columns})
    columns = {name: [prompt.columns.get(name) for prompt in prompts] for name in names}
    texts = [p.text if isinstance(p.text, str) else [m.to_json() for m in p.text] for p in prompts]
    scores = [float(s) for s in reward(texts, list(completions), **columns)]
    if len(scores) != len(prompts):
        raise NumericsError(f"the reward function returned {len(scores)} scores for {len(prompts)} completions")
    for i, value in enumerate(scores):
        if not math.isfinite(value):
            raise NonFiniteError(
                f"the reward of completion {i + 1} is {value}; a reward is a finite number: {completions[i][:60]!r}"
            )
    return scores
