"""`backflip lab run NAME`: experiments with their bars."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
from pathlib import Path
from types import ModuleType

from backflip.config import unknown

HELP = "Run an experiment (lab run NAME) or list them (lab list)."
EXPERIMENTS = ("demo_seeds",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to do, the experiment, where it goes, and its settings as NAME=VALUE."""
    parser.add_argument("action", choices=("run", "list"), help="'run' an experiment or 'list' them.")
    parser.add_argument("name", nargs="?", help="The experiment.")
    parser.add_argument("--output", metavar="FOLDER", help="Folder of the experiment. [runs/lab/NAME]")
    parser.add_argument("--seeds", metavar="N", help="How many seeds to run.")
    parser.add_argument("--quiet", action="store_true", help="Show no progress.")


def run(args: argparse.Namespace) -> int:
    """Exit code 0 when every bar was met, 1 when one was missed."""
    if args.action == "list" or args.name is None:
        for name in EXPERIMENTS:
            print(f"{name}  {load(name).TITLE}")
        return 0
    experiment = load(args.name)

    from backflip.config import from_dict
    from backflip.runs.atomic import storage

    values = {f.name: getattr(args, f.name) for f in dataclasses.fields(experiment.Settings) if getattr(args, f.name) is not None}
    settings = from_dict(experiment.Settings, values)
    folder = Path(args.output or f"runs/lab/{args.name}")
    with storage(f"folder {folder} cannot be made"):
        folder.mkdir(parents=True, exist_ok=True)
    met = experiment.run(settings, folder, args.quiet)
    show(folder)
    return 0 if met else 1


def show(folder: Path) -> None:
    """Print the acceptance lines of an experiment and where its report is."""
    import json

    for line in json.loads((folder / "result.json").read_text())["acceptance"]:
        print(f"{'✓' if line['pass'] else '✗'} {line['name']}: {line['value']:.4g} (bar {line['bar']})")
    print(f"Report: {folder / 'report.html'}")


def load(name: str) -> ModuleType:
    """The module of an experiment. Raises ConfigError naming the nearest when there is none of that name."""
    if name not in EXPERIMENTS:
        raise unknown(name, list(EXPERIMENTS), "experiment")
    return importlib.import_module(f"backflip.lab.{name}")
