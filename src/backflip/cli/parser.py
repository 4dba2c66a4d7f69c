"""An argument parser that raises one-sentence errors, names the nearest flag, and prints help a person can read."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterable
from typing import NoReturn

from backflip.config import unknown
from backflip.errors import ConfigError


class Formatter(argparse.HelpFormatter):
    """Help without noise: the usage line names what must be given, and each flag stands once, in its short spelling."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=min(shutil.get_terminal_size().columns - 1, 110))

    def add_usage(
        self,
        usage: str | None,
        actions: Iterable[argparse.Action],
        groups: Iterable[argparse._MutuallyExclusiveGroup],
        prefix: str | None = None,
    ) -> None:
        """Write the optional flags as one word in the usage line; they are listed below it."""
        needed = [action for action in actions if action.required or not action.option_strings]
        flags = argparse.Action([], dest="flags", nargs="?", metavar="settings")
        super().add_usage(usage, [flags, *needed], [], prefix)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        long = [name for name in action.option_strings if name.startswith("--")]
        short = [name for name in action.option_strings if name not in long]
        shown = ", ".join([*short, *long[:1]])
        return shown if action.nargs == 0 else f"{shown} {self._format_args(action, action.dest.upper())}"


class Parser(argparse.ArgumentParser):
    """The parser of one command. Raises ConfigError where argparse would print its usage and leave."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description, formatter_class=Formatter, allow_abbrev=False)

    def read(self, argv: list[str]) -> argparse.Namespace:
        """The values in `argv`. An unknown flag is reported before anything else, with the nearest one that exists."""
        for word in argv:
            if word == "--":
                break
            name = word.split("=", 1)[0]
            if name.startswith("--") and name not in self._option_string_actions:
                flags = [flag for flag in self._option_string_actions if flag.startswith("--")]
                raise unknown(name, [flag for flag in flags if "_" not in flag or "_" in name])
        return self.parse_args(argv)

    def error(self, message: str) -> NoReturn:
        """Turn argparse's complaint into an error of our tree. Raises ConfigError always."""
        raise ConfigError(f"{message} (see `{self.prog} --help`)")


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of every command that trains: how the run is shown."""
    parser.add_argument("--quiet", action="store_true", help="Show no progress.")
    parser.add_argument(
        "--tracker",
        type=_names,
        default=(),
        metavar="NAME,…",
        help="Show the metrics in these too: tensorboard, wandb, trackio.",
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in (part.strip() for part in text.split(",")) if name)
