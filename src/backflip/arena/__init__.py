"""Who is better? Blind matches between policies, and ratings with intervals from the verdicts on them."""

from backflip.arena.matches import MatchesAdded, add_matches, match_queries
from backflip.arena.ratings import Standings, standings

__all__ = ["MatchesAdded", "Standings", "add_matches", "match_queries", "standings"]
