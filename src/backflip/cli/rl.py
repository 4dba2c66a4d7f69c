"""`backflip rl --algorithm NAME`: a policy is improved against rewards that are learned, checked or written in Python."""

from __future__ import annotations

import argparse

from backflip.algorithms import ALGORITHMS
from backflip.cli.parser import add_run_flags
from backflip.config import add_flags, from_flags, read_yaml
from backflip.job_settings import RLJob, started_from

HELP = "Any algorithm of the family against any reward: REINFORCE, PPO, GRPO, DAPO, …; answers that can be checked, code, models."


class ListAlgorithms(argparse.Action):
    """Print every algorithm with its sentence and leave."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        """Raises SystemExit."""
        width = max(map(len, ALGORITHMS))
        for name, (_settings, sentence) in ALGORITHMS.items():
            print(f"{name:<{width}}  {sentence}")
        parser.exit()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How the run is shown, and every setting of the job; the defaults shown are GRPO's."""
    parser.add_argument("--list", action=ListAlgorithms, nargs=0, help="Name all algorithms and leave.")
    add_run_flags(parser)
    add_flags(parser, RLJob)


def run(args: argparse.Namespace) -> int:
    """Train, or go on with a stopped run."""
    from backflip.cli.online import report
    from backflip.jobs import rl_job

    name = vars(args).get("algorithm")
    if name is None:
        name = (read_yaml(args.config) if args.config else {}).get("algorithm", RLJob.algorithm)
    job = from_flags(started_from(str(name)), args)
    return report(job, rl_job(job, quiet=args.quiet, trackers=args.tracker))
