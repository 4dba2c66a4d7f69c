"""`backflip sample`: completions of a policy, printed or written to a file."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from backflip.config import add_flags, from_flags
from backflip.job_settings import SampleJob

if TYPE_CHECKING:
    from backflip.records import Sample

HELP = "Print what a policy writes for prompts, or store it as JSON lines."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Every setting of the job."""
    add_flags(parser, SampleJob)


def run(args: argparse.Namespace) -> int:
    """Sample, and print or write."""
    job = from_flags(SampleJob, args)

    from backflip.jobs import sample_job

    groups = sample_job(job)
    if job.output is None:
        show(groups)
    else:
        print(f"{sum(map(len, groups))} completions of {len(groups)} prompts in {job.output}")
    return 0


def show(groups: list[list[tuple[Sample, float | None]]]) -> None:
    """Each prompt, and under it its completions with their score where there is one."""
    from rich.console import Console
    from rich.rule import Rule
    from rich.text import Text

    console = Console(highlight=False)
    for number, group in enumerate(groups, 1):
        console.print(Rule(f"prompt {number}", align="left", style="dim"))
        console.print(Text(group[0][0].prompt.plain, style="bold"))
        for sample, value in group:
            end = "" if sample.finished else ", cut off"
            reward = "" if value is None else f", reward {value:+.3f}"
            console.print(Text(f"→ {sample.n_tokens} tokens{end}{reward}", style="dim"))
            console.print(Text(sample.text))
