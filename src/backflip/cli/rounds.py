"""`backflip rounds`: the whole loop on a policy of yours."""

from __future__ import annotations

import argparse

from backflip.config import add_flags, from_flags
from backflip.job_settings import RoundsJob

HELP = "The whole loop on your policy: ask people, learn what they meant, improve, compare, again."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Every setting of the job."""
    parser.add_argument("--quiet", action="store_true", help="Show no progress.")
    parser.add_argument(
        "--studio", action="store_true", help="Open the studio for whoever answers, and wait for all answers instead of ending."
    )
    parser.add_argument("--no-browser", action="store_true", help="With --studio: print the link and open no browser.")
    add_flags(parser, RoundsJob)


def run(args: argparse.Namespace) -> int:
    """Run it, or go on with a stopped one; a finished one shows its result again."""
    job = from_flags(RoundsJob, args)

    from backflip.cli.summary import show_result
    from backflip.rounds.job import rounds

    show_result(rounds(job, quiet=args.quiet, open_studio=args.studio, browser=not args.no_browser))
    return 0
