"""A world of small programs with visible and hidden tests, in which the visible ones can be cheated."""

from __future__ import annotations

from backflip.worlds.programs.authors import Habits
from backflip.worlds.programs.grading import (
    Graded,
    all_tests,
    brief_tests,
    flags,
    grade,
    hidden_tests,
    monitored_tests,
    reward_of,
    untampered_tests,
    visible_tests,
)
from backflip.worlds.programs.language import CHEATS, MAX_WORDS, WORDS
from backflip.worlds.programs.world import Programs

__all__ = [
    "CHEATS", "MAX_WORDS", "WORDS", "Graded", "Habits", "Programs", "all_tests", "brief_tests", "flags", "grade",
    "hidden_tests", "monitored_tests", "reward_of", "untampered_tests", "visible_tests",
]  # fmt: skip
