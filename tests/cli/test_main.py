"""The front door: finds commands, names the nearest word, turns mistakes into sentences and exit codes."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

import backflip
from backflip import errors
from backflip.cli import main
from backflip.config import add_flags, from_flags, nested, setting

SOURCE = Path(__file__).resolve().parents[2] / "src"


@dataclass(frozen=True, kw_only=True)
class Inner:
    """Settings of a part."""

    kl_coef: float = setting(0.1, "How strongly to hold on to the reference.")
    clip_range: float = setting(0.2, "How far one update may go.")


@dataclass(frozen=True, kw_only=True)
class Toy:
    """Settings of the made-up command."""

    seed: int = setting(0, "Root of all randomness.")
    ppo: Inner = nested(Inner)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Toy], int | None]], None]:
    """Installs a made-up command `toy FOLDER` whose work is the function given."""

    def install(work: Callable[[Toy], int | None]) -> None:
        module = ModuleType("backflip.cli.toy")

        def add_arguments(parser: argparse.ArgumentParser) -> None:
            parser.add_argument("folder", metavar="FOLDER", help="Where.")
            parser.add_argument("-n", "--count", type=int, default=1, help="How many.")
            add_flags(parser, Toy)

        module.HELP = "Do what the test says."  # type: ignore[attr-defined]
        module.add_arguments = add_arguments  # type: ignore[attr-defined]
        module.run = lambda args: work(from_flags(Toy, args))  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "backflip.cli.toy", module)
        monkeypatch.setattr(main, "COMMANDS", ("toy",))

    return install


def test_the_list_of_commands_is_what_stands_on_disk() -> None:
    on_disk = {path.stem for path in Path(main.__file__).parent.glob("*.py")}
    assert set(main.COMMANDS) == on_disk - {"__init__", "main", "online", "parser", "summary"}


def test_help_lists_every_command_with_its_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--help"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for name in main.COMMANDS:
        assert f"{name} {main.load(name).HELP}" in printed
    assert main.main([]) == 0
    assert " ".join(capsys.readouterr().out.split()) == printed


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_help_keeps_to_the_width_of_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    texts = [main.overview(), *(main.parser(name).format_help() for name in main.COMMANDS)]
    # A flag or a word longer than the terminal cannot be broken; only lines that could have been count.
    long = [line for text in texts for line in text.splitlines() if len(line) > columns and len(line.split()) > 4]
    assert long == []


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--version"]) == 0
    assert capsys.readouterr().out == f"backflip {backflip.__version__}\n"


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["dmo"], "backflip: unknown command 'dmo'; did you mean 'demo'?\n"),
        (["roundz"], "backflip: unknown command 'roundz'; did you mean 'rounds'?\n"),
        (["--versoin"], "backflip: unknown option '--versoin'; did you mean '--version'?\n"),
    ],
)
def test_an_unknown_word_names_the_nearest(argv: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(argv) == 2
    assert capsys.readouterr() == ("", sentence)


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--kl-coeff", "1"], "unknown setting '--kl-coeff'; did you mean '--kl-coef'?"),
        (["--kl-coeff=1"], "unknown setting '--kl-coeff'; did you mean '--kl-coef'?"),
        (["--ppo.clip-rnge=1"], "unknown setting '--ppo.clip-rnge'; did you mean '--ppo.clip-range'?"),
        (["--kl", "1"], "unknown setting '--kl'; did you mean '--kl-coef'?"),
        (["-z"], "the following arguments are required: FOLDER (see `backflip toy --help`)"),
        (["here", "-z"], "unrecognized arguments: -z (see `backflip toy --help`)"),
        ([], "the following arguments are required: FOLDER (see `backflip toy --help`)"),
        (["here", "-n", "x"], "argument -n/--count: invalid int value: 'x' (see `backflip toy --help`)"),
        (["here", "--seed"], "argument --seed: expected one argument (see `backflip toy --help`)"),
        (["here", "--seed", "1.5"], "setting 'seed' needs a whole number, not '1.5'"),
    ],
)
def test_a_wrong_flag_is_one_sentence(
    argv: list[str], sentence: str, toy: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    toy(lambda settings: None)
    assert main.main(["toy", *argv]) == 2
    assert capsys.readouterr() == ("", f"backflip: {sentence}\n")


def test_flags_reach_the_command_in_every_spelling(toy: Callable[..., None]) -> None:
    seen: list[Toy] = []
    toy(lambda settings: seen.append(settings))
    assert main.main(["toy", "here", "--kl-coef", "1", "--seed=3"]) == 0
    assert main.main(["toy", "here", "--ppo.kl_coef=1", "--seed", "3"]) == 0
    assert main.main(["toy", "--seed", "3", "--kl_coef=1", "--", "--here"]) == 0
    assert seen == [Toy(seed=3, ppo=Inner(kl_coef=1.0))] * 3


def test_command_help_shows_each_flag_once(toy: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    toy(lambda settings: None)
    with pytest.raises(SystemExit, match="0"):
        main.main(["toy", "--help"])
    printed = capsys.readouterr().out
    assert printed.startswith("usage: backflip toy [settings] FOLDER\n\nDo what the test says.")
    assert printed.count("kl-coef") == 1
    assert "kl_coef" not in printed
    assert "-n, --count COUNT" in printed
    assert "How strongly to hold on to the reference. [0.1]" in printed


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (errors.DataError("votes.jsonl, line 3: no column 'chosen'"), 2),
        (errors.StorageError("the disk is full"), 2),
        (errors.Interrupted("stopped at step 3; run the same command again to go on"), 130),
    ],
)
def test_a_problem_on_purpose_is_a_sentence_and_a_code(
    problem: errors.BackflipError, code: int, toy: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def work(settings: Toy) -> None:
        raise problem

    toy(work)
    assert main.main(["toy", "here"]) == code
    assert capsys.readouterr() == ("", f"backflip: {problem}\n")


def test_the_command_decides_its_exit_code(toy: Callable[..., None]) -> None:
    toy(lambda settings: 1)
    assert main.main(["toy", "here"]) == 1


def test_ctrl_c_leaves_quietly(toy: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    def work(settings: Toy) -> None:
        raise KeyboardInterrupt

    toy(work)
    assert main.main(["toy", "here"]) == 130
    assert capsys.readouterr() == ("", "backflip: stopped\n")


def test_a_bug_shows_itself(toy: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    def work(settings: Toy) -> None:
        raise ZeroDivisionError("in our own code")

    toy(work)
    with pytest.raises(ZeroDivisionError):
        main.main(["toy", "here"])
    assert "this is a bug in backflip; please report it" in capsys.readouterr().err


def run_module(*argv: str, stdout: int, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m backflip …` in a process of its own."""
    command = [sys.executable, "-m", "backflip", *argv]
    variables = os.environ | {"PYTHONPATH": str(SOURCE)} | environment
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, env=variables, timeout=60)


def test_a_reader_that_goes_away_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = run_module("--help", stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_python_dash_m_and_a_terminal_without_unicode() -> None:
    done = run_module("--help", stdout=subprocess.PIPE, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: backflip COMMAND" in done.stdout
