"""Things that judge: reward functions and learned reward models."""

from backflip.rewards.learned import RewardModel
from backflip.rewards.protocol import RewardFunction, score

__all__ = ["RewardFunction", "RewardModel", "score"]
