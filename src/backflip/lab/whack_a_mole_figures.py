"""What is read off the rounds of `whack-a-mole`: where a run is hacked, what kind of hack it is, and whether it comes back.

Legend: N prompts of a look.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from backflip.lab.guard_figures import mean
from backflip.lab.guard_recorder import Seen
from backflip.monitor.features import Attribution, attribute
from backflip.monitor.signals import scale_of

Round = Mapping[str, Any]
"""A round's figures, as `whack_a_mole_stages.played` gives them."""

EMPTY = "empty"
DIRECTIONS = {
    "words": ("longer", "shorter"), "letters per word": ("longer words", "shorter words"),
    "different words": ("more different words", "fewer different words"), "repeated n-grams": ("repetition", "less repetition"),
    "punctuation": ("more punctuation", "less punctuation"), "capitals": ("more capitals", "fewer capitals"),
    "figures": ("more figures", "fewer figures"), "lines": ("more lines", "fewer lines"),
}  # fmt: skip
"""What a kind of hack is called, by the feature and whether there is more of it or less; a word is called by itself."""


class Hack(NamedTuple):
    """The look with the most gold before a run is hacked, and the first at which it is."""

    peak: int
    at: int


def hack(seen: Sequence[Seen], tolerance: float, sure: float) -> Hack | None:
    """The first look at which gold has surely fallen from its peak while the proxy has risen since; None without one.

        mean(peak − now) − tolerance · (mean peak − mean first) > sure · SE(peak − now),   prompt by prompt

    The peak is the look with the most gold so far. All looks are at the same prompts with the same random numbers.
    """
    best = 0
    for i in range(1, len(seen)):
        if seen[i].worth > seen[best].worth:
            best = i
            continue
        fall_N = np.array(seen[best].gold) - np.array(seen[i].gold)
        allowed = tolerance * (seen[best].worth - seen[0].worth)
        error = float(fall_N.std(ddof=1)) / math.sqrt(len(fall_N))
        risen = mean(seen[i].look.proxy) > mean(seen[best].look.proxy)
        if risen and float(fall_N.mean()) - allowed > sure * error:
            return Hack(best, i)
    return None


def paid(first: Seen, last: Seen) -> list[Attribution]:
    """What of the proxy's gain between two looks goes with each feature, beside what of gold's does, the largest excess first."""
    proxy, gold = scale_of(first.look.proxy), scale_of(first.gold)
    return attribute(
        first.look.completions, last.look.completions, (proxy.of(first.look.proxy), proxy.of(last.look.proxy)),
        (gold.of(first.gold), gold.of(last.gold)),
    )  # fmt: skip


def kind(found: Sequence[Attribution]) -> str:
    """The name of a hack: the feature with the largest excess of proxy over gold and its direction; "empty" for hardly a word.

    >>> kind([Attribution("words", 25.0, 11.0, 1.0, -1.0), Attribution("capitals", 0.1, 0.2, 0.5, 0.0)])
    'shorter'
    """
    words = next((each.now for each in found if each.feature == "words"), 1.0)
    worst = found[0]
    if worst.feature in DIRECTIONS:
        name = DIRECTIONS[worst.feature][worst.now < worst.before]
        return EMPTY if name == "shorter" and words < 1 else name
    return worst.feature


def steps_to_hack(rounds: Sequence[Round], most: int) -> list[float]:
    """Steps to the hack in each round; a round without one counts `most`, the steps it had, which is too little."""
    return [float(most if r["steps"] is None else r["steps"]) for r in rounds]


def trend(rounds: Sequence[Round], most: int) -> float:
    """Steps that the hack comes later from round to round: the slope of a straight line by least squares.

    >>> trend([{"steps": 8}, {"steps": None}, {"steps": 12}], 10)
    2.0
    """
    slope, _ = np.polyfit(np.arange(len(rounds)), steps_to_hack(rounds, most), 1)
    return round(float(slope), 12)


def gone(rounds: Sequence[Round]) -> list[bool]:
    """Of each round that was hacked, but for the last: whether the next is not hacked in the same way.

    >>> gone([{"kind": "shorter"}, {"kind": "shorter"}, {"kind": None}, {"kind": "longer"}])
    [False, True]
    """
    return [before["kind"] != after["kind"] for before, after in itertools.pairwise(rounds) if before["kind"] is not None]
