"""Text to imitate, as token ids: what fine-tuning and pretraining learn from, and what PPO-ptx mixes in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from backflip.maths.tensors import keep, masked_sum
from backflip.policies.language import LanguagePolicy
from backflip.policies.tokens import token_batch


class Example(NamedTuple):
    """Ids the model reads, and ids it learns to write after them."""

    query: list[int]
    response: list[int]

    @property
    def length(self) -> int:
        """Tokens of both."""
        return len(self.query) + len(self.response)


def log_likelihoods(policy: LanguagePolicy, rows: Sequence[Example]) -> Tensor:
    """Σ log π over the tokens of each row's response, in nats: (B,), differentiable."""
    batch = token_batch([r.query for r in rows], [r.response for r in rows], fill=policy.fill_id).to(policy.device)
    return keep(policy.score(batch).logps_BT, batch.mask_BT).sum(dim=1)


def negative_log_likelihood(policy: LanguagePolicy, rows: Sequence[Example]) -> Tensor:
    """−Σ log π over every token of these rows' responses, in nats: a scalar, differentiable."""
    batch = token_batch([r.query for r in rows], [r.response for r in rows], fill=policy.fill_id).to(policy.device)
    return -masked_sum(policy.score(batch).logps_BT, batch.mask_BT)
