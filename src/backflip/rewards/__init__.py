"""Things that judge: reward functions, learned reward models, and their weighted sums."""

from backflip.rewards.ensemble import Ensemble, load_reward
from backflip.rewards.learned import RewardModel
from backflip.rewards.naming import parse_rewards
from backflip.rewards.protocol import RewardFunction, score
from backflip.rewards.spans import Process, Span, place_spans
from backflip.rewards.weighted import Judgement, Weighted, judge

__all__ = [
    "Ensemble",
    "Judgement",
    "Process",
    "RewardFunction",
    "RewardModel",
    "Span",
    "Weighted",
    "judge",
    "load_reward",
    "parse_rewards",
    "place_spans",
    "score",
]
