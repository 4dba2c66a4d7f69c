"""`backflip ppo`: a policy is improved against a reward model."""

from __future__ import annotations

import argparse

from backflip.cli.online import improve
from backflip.cli.parser import add_run_flags
from backflip.config import add_flags, from_flags
from backflip.job_settings import PPOJob

HELP = "Improve a policy against a reward model, held to where it started by a KL penalty."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How the run is shown, and every setting of the job."""
    add_run_flags(parser)
    add_flags(parser, PPOJob)


def run(args: argparse.Namespace) -> int:
    """Train, or go on with a stopped run."""
    return improve(from_flags(PPOJob, args), args)
