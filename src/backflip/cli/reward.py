"""`backflip reward`: a reward model from comparisons."""

from __future__ import annotations

import argparse

from backflip.cli.parser import add_run_flags
from backflip.cli.summary import show_accuracy, show_verifier
from backflip.config import add_flags, from_flags
from backflip.job_settings import RewardJob

HELP = "Fit a reward model to comparisons and say how good it is."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How the run is shown, and every setting of the job."""
    add_run_flags(parser)
    add_flags(parser, RewardJob)


def run(args: argparse.Namespace) -> int:
    """Train, or go on with a stopped run; print accuracy beside the two bars it must clear."""
    job = from_flags(RewardJob, args)

    from backflip.jobs import reward_job

    result = reward_job(job, quiet=args.quiet, trackers=args.tracker)
    if job.labels != "comparisons":
        show_verifier(result)
        print(f"model:  {job.output}/model\nreport: {job.output}/report.html")
        return 0
    show_accuracy("this reward model", result)
    error, length = result["calibration_error"], result["length_correlation"]
    if "cross_validation" in result:
        found = result["cross_validation"]
        print(
            f"{found['folds']} folds by {found['by']}: {found['accuracy']:.1%} of {found['n']} (95 % interval "
            f"{found['accuracy_low']:.1%} to {found['accuracy_high']:.1%}), always the shorter {found['shorter_accuracy']:.1%}"
        )
    if "left_out" in result:
        print("left out: " + ", ".join(f"{n} {why}" for why, n in result["left_out"].items()))
    print(f"calibration error {error:.3f}, correlation with length {length:+.2f}")
    print(
        f"temperature {result['temperature']:.2f}: log loss {result['log_loss']:.3f}, at that temperature "
        f"{result['log_loss_at_temperature']:.3f}"
    )
    print(
        f"taste in length, nats a standard deviation: the model {result['length_coefficient']:+.2f}, the people "
        f"{result['length_coefficient_of_people']:+.2f}"
    )
    print(f"model:  {job.output}/model\nreport: {job.output}/report.html")
    return 0
