"""Things that act: language models, the heads on them, and how they are loaded and saved."""

from backflip.policies.language import LanguagePolicy, Scores
from backflip.policies.loading import load_policy, with_lora
from backflip.policies.tokens import TokenBatch, positions, token_batch

Policy = LanguagePolicy

__all__ = ["LanguagePolicy", "Policy", "Scores", "TokenBatch", "load_policy", "positions", "token_batch", "with_lora"]
