"""`backflip ppo`: a policy is improved against a reward model."""

from __future__ import annotations

import argparse

from backflip.cli.parser import add_run_flags
from backflip.config import add_flags, from_flags
from backflip.settings import PPOJob

HELP = "Improve a policy against a reward model, held to where it started by a KL penalty."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How the run is shown, and every setting of the job."""
    add_run_flags(parser)
    add_flags(parser, PPOJob)


def run(args: argparse.Namespace) -> int:
    """Train, or go on with a stopped run; print the last step's figures and where the model is."""
    job = from_flags(PPOJob, args)

    from backflip.jobs import ppo_job

    result = ppo_job(job, quiet=args.quiet, trackers=args.tracker)
    print(f"at the last of {job.train.steps} steps:")
    print(f"  reward                   {result['objective/scores']:+.3f}")
    kl, per_token = result["kl/seq_nats"], result["kl/tok_nats"]
    print(f"  KL to the first policy   {kl:.2f} nats per sequence, {per_token:.4f} per token")
    print(f"  KL coefficient           {result['kl_coef']:.4g}")
    length, unfinished = result["rollout/length"], result["rollout/unfinished_share"]
    print(f"  length                   {length:.1f} tokens, {unfinished:.0%} unfinished")
    print(f"model:  {job.output}/model\nreport: {job.output}/report.html")
    return 0
