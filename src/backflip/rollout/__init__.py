"""Prompt → samples: the engines that draw from a policy, and beam search."""

from backflip.rollout.beam import beam_search
from backflip.rollout.local import Rollout, encode_prompts, generate, generate_samples

__all__ = ["Rollout", "beam_search", "encode_prompts", "generate", "generate_samples"]
