"""A procedural text world whose truth is known: reviews with latent factors, and the gold utility of each."""

from __future__ import annotations

from backflip.worlds.reviews.gold import Factors, Weights, utility
from backflip.worlds.reviews.grammar import count_texts
from backflip.worlds.reviews.world import Reviews

__all__ = ["Factors", "Reviews", "Weights", "count_texts", "utility"]
