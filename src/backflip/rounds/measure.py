"""What came out of a loop, in numbers."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from backflip.arena import Standings
from backflip.policies.language import LanguagePolicy
from backflip.policies.tokens import token_batch
from backflip.records import Sample


@torch.no_grad()
def sequence_kl(
    policy: LanguagePolicy,
    reference: LanguagePolicy,
    samples: Sequence[Sample],
    *,
    temperature: float,
    batch_size: int = 64,
) -> float:
    """KL(π‖π_ref) in nats per sequence: the mean of Σ_t log π/π_ref over samples drawn from π at `temperature`."""
    total = 0.0
    for start in range(0, len(samples), batch_size):
        part = samples[start : start + batch_size]
        batch = token_batch([policy.encode(s.prompt) for s in part], [s.tokens for s in part], fill=policy.fill_id).to(
            policy.device
        )
        ours, theirs = (p.score(batch, temperature=temperature).logps_BT for p in (policy, reference))
        total += float(((ours - theirs) * batch.mask_BT).sum())
    return total / len(samples)


def win_rate(table: Standings, policy: str, against: str) -> dict[str, Any]:
    """How often `policy` beat `against` in the arena, with its 95 % interval."""
    rate = table.win_rates[policy, against]
    return {"mean": rate.mean, "low": rate.low, "high": rate.high, "n": rate.n}


def mean_difference(after: Sequence[float], before: Sequence[float]) -> dict[str, float]:
    """Mean of after − before over the same prompts, with its 95 % interval (normal approximation) and their number."""
    gains = [a - b for a, b in zip(after, before, strict=True)]
    mean = statistics.fmean(gains)
    spread = 1.96 * statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
    return {"mean": mean, "low": mean - spread, "high": mean + spread, "n": len(gains)}


def acceptance(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a loop should achieve: one line each with what was measured, its value, its bar and whether it passed.

    Where a value has an interval, the interval's lower end must pass the bar.
    """
    quality, gain = result["reward_model"], result["gain"]
    lines = [
        (
            "reward model right on held-out pairs, against a coin",
            quality["accuracy"],
            0.5,
            quality["accuracy_low"] > 0.5,
        ),
        (
            "reward model right on held-out pairs, against always preferring the shorter reply",
            quality["accuracy"],
            quality["shorter_accuracy"],
            quality["accuracy"] > quality["shorter_accuracy"],
        ),
        ("proxy reward gained over the first policy", gain["proxy"]["mean"], 0.0, gain["proxy"]["low"] > 0),
    ]
    lines += [
        (f"{kind} reward gained over the first policy", gain[kind]["mean"], 0.0, gain[kind]["low"] > 0)
        for kind in ("sentinel", "gold")
        if kind in gain
    ]
    limit = 1.5 * result["kl_target_nats"]
    lines.append(
        (
            "KL to the first policy, in nats, at most one and a half targets",
            result["kl_seq_nats"],
            limit,
            result["kl_seq_nats"] <= limit,
        )
    )
    return [{"what": what, "value": value, "bar": bar, "pass": passed} for what, value, bar, passed in lines]
