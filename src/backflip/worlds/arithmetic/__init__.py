"""A world of arithmetic with an exact checker: sums with scratchpads of three lengths, and copying as a control task."""

from __future__ import annotations

from backflip.worlds.arithmetic.checks import accuracy, format_tags, reward
from backflip.worlds.arithmetic.notation import BOTH, WORDS, read
from backflip.worlds.arithmetic.traces import Noise, Styles, Tongues
from backflip.worlds.arithmetic.world import Arithmetic

__all__ = ["BOTH", "WORDS", "Arithmetic", "Noise", "Styles", "Tongues", "accuracy", "format_tags", "read", "reward"]
