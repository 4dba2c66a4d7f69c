"""`backflip lab list|show|run NAME`: experiments with their bars."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

from backflip.config import from_dict, leaves, unknown
from backflip.errors import ConfigError

HELP = "Run an experiment (lab run NAME), explain one (lab show NAME) or list them (lab list)."
EXPERIMENTS = (
    "demo-seeds",
    "exact",
    "goodhart",
    "overoptimisation",
    "stiennon",
    "grue",
    "instructgpt",
    "ppo-details",
    "reward-models",
    "annotators",
    "generator-gap",
    "guard",
    "many-rounds",
    "whack-a-mole",
    "active-loop",
    "hh-online",
    "exploration",
    "test-time",
    "r1-zero",
    "r1",
    "code-cheats",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to do, the experiment, where it goes, and its settings."""
    parser.add_argument("action", choices=("run", "list", "show"), help="'run' an experiment, 'show' what one is, 'list' them.")
    parser.add_argument("name", nargs="?", help="The experiment.")
    parser.add_argument("--out", "--output", dest="output", metavar="FOLDER", help="Folder of the experiment. [runs/lab/NAME]")
    parser.add_argument("--seeds", metavar="N", help="Run seeds 0, 1, … this many.")
    parser.add_argument("--quick", action="store_true", help="A run of seconds or few minutes, too small for the bars.")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="Any other setting of the experiment; may be repeated."
    )
    parser.add_argument("--quiet", action="store_true", help="Show no progress.")


def run(args: argparse.Namespace) -> int:
    """Exit code 0 when every bar was met, 1 when one was missed."""
    if args.action == "list" or args.name is None:
        for name in EXPERIMENTS:
            print(f"{name}  {load(name).TITLE}")
        return 0
    experiment = load(args.name)
    folder = Path(args.output or f"runs/lab/{spelled(args.name)}")
    if args.action == "show":
        explain(experiment, folder)
        return 0
    settings = chosen(experiment, args)

    from backflip.runs.atomic import storage

    with storage(f"folder {folder} cannot be made"):
        folder.mkdir(parents=True, exist_ok=True)
    met = experiment.run(settings, folder, args.quiet)
    show(folder)
    return 0 if met else 1


def chosen(experiment: ModuleType, args: argparse.Namespace) -> Any:
    """The experiment's settings as the flags have them. Raises ConfigError for one that it does not have."""
    base = getattr(experiment, "QUICK", None) if args.quick else experiment.Settings()
    if base is None:
        raise ConfigError(f"experiment {args.name!r} has no quick form; leave --quick out")
    values: dict[str, Any] = {} if args.seeds is None else {"seeds": args.seeds}
    for text in args.set:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text!r} is not NAME=VALUE")
        *path, last = name.replace("-", "_").split(".")
        place = values
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return from_dict(experiment.Settings, values, base=base)


def explain(experiment: ModuleType, folder: Path) -> None:
    """Print what an experiment is about, its settings, and what came out where it was run."""
    print(f"{experiment.TITLE}\n\n{(experiment.__doc__ or '').strip()}\n")
    for leaf in leaves(experiment.Settings):
        print(f"  {leaf.dotted} [{leaf.default}]  {leaf.help}")
    if (folder / "result.json").exists():
        print()
        show(folder)


def show(folder: Path) -> None:
    """Print the acceptance lines of an experiment and where its report is."""
    for name, line in json.loads((folder / "result.json").read_text())["accept"].items():
        print(f"{'✓' if line['pass'] else '✗'} {name}: {line['value']:.4g} (bar {line['bar']})")
    print(f"Report: {folder / 'report.html'}")


def spelled(name: str) -> str:
    """The name of an experiment as it is written on the command line."""
    return name.replace("_", "-")


def load(name: str) -> ModuleType:
    """The module of an experiment. Raises ConfigError naming the nearest when there is none of that name."""
    if spelled(name) not in EXPERIMENTS:
        raise unknown(name, list(EXPERIMENTS), "experiment")
    return importlib.import_module(f"backflip.lab.{name.replace('-', '_')}")
