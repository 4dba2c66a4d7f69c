"""The outer loop: ask, learn what was meant, improve, compare, ask again."""

from backflip.rounds.loop import Loop, generation

__all__ = ["Loop", "generation"]
