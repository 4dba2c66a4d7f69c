"""What came out of a loop, in numbers."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import torch

from backflip.arena import Standings
from backflip.policies.language import LanguagePolicy
from backflip.policies.tokens import token_batch
from backflip.records import Sample
from backflip.rewards.protocol import RewardFunction, score


def mean_reward(reward: RewardFunction, samples: Sequence[Sample]) -> float:
    """Mean score of samples."""
    return statistics.fmean(score(reward, [s.prompt for s in samples], [s.text for s in samples]))


@torch.no_grad()
def sequence_kl(
    policy: LanguagePolicy, reference: LanguagePolicy, samples: Sequence[Sample], *, temperature: float, batch_size: int = 64
) -> float:
    """KL(π‖π_ref) in nats per sequence: the mean of Σ_t log π/π_ref over samples drawn from π at `temperature`."""
    total = 0.0
    for start in range(0, len(samples), batch_size):
        part = samples[start : start + batch_size]
        batch = token_batch([policy.encode(s.prompt) for s in part], [s.tokens for s in part], fill=policy.fill_id).to(policy.device)
        ours, theirs = (p.score(batch, temperature=temperature).logps_BT for p in (policy, reference))
        total += float(((ours - theirs) * batch.mask_BT).sum())
    return total / len(samples)


def win_rate(table: Standings, policy: str, against: str) -> dict[str, Any]:
    """How often `policy` beat `against` in the arena, with its 95 % interval."""
    rate = table.win_rates[policy, against]
    return {"mean": rate.mean, "low": rate.low, "high": rate.high, "n": rate.n}
