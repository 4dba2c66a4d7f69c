"""Prompt → samples: the engines that draw from a policy."""

from backflip.rollout.local import Rollout, encode_prompts, generate, generate_samples

__all__ = ["Rollout", "encode_prompts", "generate", "generate_samples"]
