"""What `backflip ppo`, `grpo`, `rloo` and `rl` share: they are one loop with other defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from backflip.job_settings import PPOJob, RLJob


def improve(job: PPOJob, args: argparse.Namespace) -> int:
    """Train, or go on with a stopped run; print the last step's figures and where the model is."""
    from backflip.jobs import online_job

    return report(job, online_job(job, quiet=args.quiet, trackers=args.tracker))


def report(job: PPOJob | RLJob, result: Mapping[str, float]) -> int:
    """Print the last step's figures and where the model is."""
    print(f"at the last of {job.train.steps} steps:")
    print(f"  reward                   {result['objective/scores']:+.3f}")
    kl, per_token = result["kl/seq_nats"], result["kl/tok_nats"]
    print(f"  KL to the first policy   {kl:.2f} nats per sequence, {per_token:.4f} per token")
    print(f"  KL coefficient           {result['kl_coef']:.4g}")
    length, unfinished = result["rollout/length"], result["rollout/unfinished_share"]
    print(f"  length                   {length:.1f} tokens, {unfinished:.0%} unfinished")
    print(f"model:  {job.output}/model\nreport: {job.output}/report.html")
    return 0
