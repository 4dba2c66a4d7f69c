"""`backflip grpo`: a policy is improved against a reward model, with the parts and numbers of GRPO."""

from __future__ import annotations

import argparse

from backflip.cli.online import improve
from backflip.cli.parser import add_run_flags
from backflip.config import add_flags, from_flags
from backflip.job_settings import GRPOJob

HELP = "The same without a critic: each completion is measured against the others of its prompt."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How the run is shown, and every setting of the job."""
    add_run_flags(parser)
    add_flags(parser, GRPOJob)


def run(args: argparse.Namespace) -> int:
    """Train, or go on with a stopped run."""
    return improve(from_flags(GRPOJob, args), args)
