"""`backflip demo`: the whole system, from nothing, in minutes."""

from __future__ import annotations

import argparse

from backflip.config import add_flags, from_flags
from backflip.job_settings import HUMAN_DEMO, DemoJob

HELP = "From nothing to a policy that people prefer: pretrain, fine-tune, compare, improve, twice, with a report."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Every setting of the demo."""
    parser.add_argument("--quiet", action="store_true", help="Show no progress.")
    parser.add_argument("--no-browser", action="store_true", help="With --human: print the link and open no browser.")
    add_flags(parser, DemoJob)


def run(args: argparse.Namespace) -> int:
    """Run it, or go on with a stopped one; a finished one is set aside first."""
    import time

    clock = time.monotonic()
    settings = from_flags(DemoJob, args)
    if settings.human:
        settings = from_flags(DemoJob, args, base=HUMAN_DEMO)

    from pathlib import Path

    from backflip.runs import set_aside

    if (Path(settings.output) / "result.json").exists():
        print(f"the finished run in {settings.output} is kept as {set_aside(settings.output)}")

    from backflip.cli.summary import show_result
    from backflip.demo import demo

    show_result(demo(settings, quiet=args.quiet, browser=not args.no_browser, clock=clock))
    return 0
