"""`backflip sft`: a policy learns to write like its data."""

from __future__ import annotations

import argparse

from backflip.cli.parser import add_run_flags
from backflip.config import add_flags, from_flags
from backflip.job_settings import SFTJob

HELP = "Fine-tune a policy on demonstrations, or pretrain one on raw text."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How the run is shown, and every setting of the job."""
    add_run_flags(parser)
    add_flags(parser, SFTJob)


def run(args: argparse.Namespace) -> int:
    """Train, or go on with a stopped run; print the figures and where the model is."""
    job = from_flags(SFTJob, args)

    from backflip.jobs import sft_job

    result = sft_job(job, quiet=args.quiet, trackers=args.tracker)
    print(f"{result['steps']:.0f} updates on {result['examples']:.0f} rows")
    if "eval_loss" in result:
        print(f"loss on rows kept aside: {result['eval_loss']:.4f} nats per token")
    print(f"model:  {job.output}/model\nreport: {job.output}/report.html")
    return 0
