"""`backflip rloo`: a policy is improved against a reward model, with the parts and numbers of RLOO."""

from __future__ import annotations

import argparse

from backflip.cli.online import improve
from backflip.cli.parser import add_run_flags
from backflip.config import add_flags, from_flags
from backflip.job_settings import RLOOJob

HELP = "The same without a critic or clipping: each completion against the mean of its prompt's others."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How the run is shown, and every setting of the job."""
    add_run_flags(parser)
    add_flags(parser, RLOOJob)


def run(args: argparse.Namespace) -> int:
    """Train, or go on with a stopped run."""
    return improve(from_flags(RLOOJob, args), args)
