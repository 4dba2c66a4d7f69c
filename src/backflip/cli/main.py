"""`backflip COMMAND …`: finds the command's file, reads its flags, runs it, and prints a mistake as one sentence.

Exit codes: 0 done, 1 the command's own "no", 2 something given is wrong, 3 people have to answer first, 130 stopped by
Ctrl-C, 141 the reader of our output went away.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
import textwrap
from collections.abc import Sequence
from types import ModuleType

import backflip
from backflip.cli.parser import Formatter, Parser
from backflip.config import unknown
from backflip.errors import BackflipError

COMMANDS = (
    "demo", "sft", "reward", "ppo", "grpo", "rloo", "rl", "dpo", "feedback", "label", "studio", "sample", "chat", "arena",
    "rounds", "report", "store", "doctor", "lab",
)  # fmt: skip
"""The commands in the order a person meets them; each is the module of that name beside this one."""

OPTIONS = {"--help": "Print this list.", "--version": "Print the version."}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (default: the process's own) and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character must not end a run
    try:
        code = _dispatch(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except BackflipError as problem:
        print(f"backflip: {problem}", file=sys.stderr)
        return problem.exit_code
    except KeyboardInterrupt:
        print("backflip: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        _discard_output()
        return 141
    except Exception:
        print("backflip: this is a bug in backflip; please report it with the lines below", file=sys.stderr)
        raise
    return code


def _dispatch(argv: list[str]) -> int:
    name = argv[0] if argv else "--help"
    if name in ("-h", "--help"):
        print(overview())
        return 0
    if name == "--version":
        print(f"backflip {backflip.__version__}")
        return 0
    if name.startswith("-"):
        raise unknown(name, list(OPTIONS), "option")
    if name not in COMMANDS:
        raise unknown(name, list(COMMANDS), "command")
    # Idle threads should spin for microseconds, not for as long as they like: on a machine that is busy with something
    # else, long spinning makes two threads several times slower than one. It must be said before torch is loaded, and the
    # person's own choice wins.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    module = load(name)
    return module.run(parser(name).read(argv[1:])) or 0


def load(name: str) -> ModuleType:
    """The module of a command."""
    return importlib.import_module(f"backflip.cli.{name}")


def parser(name: str) -> Parser:
    """The parser of a command, its flags added."""
    module = load(name)
    made = Parser(f"backflip {name}", module.HELP)
    module.add_arguments(made)
    return made


def overview() -> str:
    """What `backflip --help` prints: every command with its sentence, wrapped to the terminal."""
    rows = [("commands", [(name, load(name).HELP) for name in COMMANDS]), ("options", list(OPTIONS.items()))]
    width = Formatter("backflip")._width
    lines = ["usage: backflip COMMAND …", "", *textwrap.wrap(backflip.__doc__ or "", width)]
    for title, entries in rows:
        lines += ["", f"{title}:"]
        for name, sentence in entries:
            lines += textwrap.wrap(sentence, width, initial_indent=f"  {name:<11}", subsequent_indent=" " * 13)
    more = textwrap.wrap("`backflip COMMAND --help` explains a command and lists its settings.", width)
    return "\n".join([*lines, "", *more])


def _discard_output() -> None:
    """Point stdout at nothing, so that the interpreter's last flush does not complain about the closed pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
