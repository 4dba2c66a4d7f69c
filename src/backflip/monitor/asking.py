"""Fresh questions at a look: is what the policy writes now better than what it wrote at the best look so far?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from backflip.maths.shares import Share
from backflip.monitor.mining import questions
from backflip.monitor.signals import win_share
from backflip.records import Query
from backflip.runs.watching import Look

Ask = Callable[[Sequence[Query]], Sequence[float | None]]
"""Questions to how far each one's first text is preferred: 1, 0, ½ for a tie, None where nobody said."""


class Votes(NamedTuple):
    """How often the newer texts were preferred, and by how many standard errors of a coin that is more than half."""

    wins: Share
    z: float


def votes(look: Look, best: Sequence[str], best_step: int, n: int, turn: int, ask: Ask) -> Votes:
    """Ask about n of a look's prompts, what was written now beside what was written at the best look.

    z = (wins − ½) / (½/√n). Each look, `turn` counts them, asks about the prompts that follow those of the look before, so that
    in time all are asked about. Two texts that are the same tie and nobody is asked; what nobody answered does not count.
    """
    size = len(look.prompts)
    chosen = [(n * turn + i) % size for i in range(min(n, size))]
    different = [i for i in chosen if look.completions[i] != best[i]]
    rows = [{"prompt": look.prompts[i], "completion": look.completions[i], "before": best[i]} for i in different]
    now = f"step {look.step}"
    asked = questions(rows, policy=now, first=f"step {best_step}")
    answers = [
        answer if query.policies[0] == now else 1.0 - answer
        for query, answer in zip(asked, ask(asked), strict=True)
        if answer is not None
    ]
    preferred = [*answers, *[0.5] * (len(chosen) - len(different))]
    if not preferred:
        return Votes(win_share([]), 0.0)
    return Votes(win_share(preferred), (sum(preferred) / len(preferred) - 0.5) * 2 * math.sqrt(len(preferred)))
