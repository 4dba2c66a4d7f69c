"""`backflip dpo`: a policy learns from comparisons directly."""

from __future__ import annotations

import argparse

from backflip.cli.parser import add_run_flags
from backflip.cli.summary import show_accuracy
from backflip.config import add_flags, from_flags
from backflip.job_settings import DPOJob

HELP = "Improve a policy on comparisons directly, without a reward model (DPO, cDPO, IPO)."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How the run is shown, and every setting of the job."""
    add_run_flags(parser)
    add_flags(parser, DPOJob)


def run(args: argparse.Namespace) -> int:
    """Train, or go on with a stopped run; print how well the policy tells the better text, and where it is."""
    job = from_flags(DPOJob, args)

    from backflip.jobs import dpo_job

    result = dpo_job(job, quiet=args.quiet, trackers=args.tracker)
    show_accuracy("its implicit reward", result)
    print(f"correlation of its reward with length {result['length_correlation']:+.2f}")
    print(f"model:  {job.output}/model\nreport: {job.output}/report.html")
    return 0
