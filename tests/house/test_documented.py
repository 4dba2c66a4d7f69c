"""Everything public has its sentence: modules, classes, functions, methods and command-line flags."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from backflip.cli import main

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "backflip"


def undocumented(source: str) -> Iterator[str]:
    """The public names of a module that have no docstring; the module itself is `module`."""
    tree = ast.parse(source)
    if not ast.get_docstring(tree):
        yield "module"
    yield from _undocumented(tree, "")


def _undocumented(scope: ast.Module | ast.ClassDef, prefix: str) -> Iterator[str]:
    for node in ast.iter_child_nodes(scope):
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
            continue
        if not ast.get_docstring(node) and not any("overload" in ast.unparse(d) for d in node.decorator_list):
            yield prefix + node.name
        if isinstance(node, ast.ClassDef):
            yield from _undocumented(node, f"{prefix}{node.name}.")


def flags_without_help(parser: argparse.ArgumentParser) -> list[str]:
    """The flags and positional arguments of a parser that nothing explains."""
    return [
        action.option_strings[0] if action.option_strings else action.dest
        for action in parser._actions
        if not (action.help or "").strip(" []%()")
    ]


def test_everything_public_has_a_docstring() -> None:
    missing = [
        f"{path.relative_to(PACKAGE)}: {name}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for name in undocumented(path.read_text(encoding="utf-8"))
    ]
    assert not missing, "\n".join(missing)


@pytest.mark.parametrize("command", main.COMMANDS)
def test_every_flag_has_help(command: str) -> None:
    parser = main.parser(command)
    assert flags_without_help(parser) == []
    assert main.load(command).HELP.strip().endswith("."), "HELP is one sentence"
    assert command in parser.format_help()


def test_missing_sentences_are_noticed() -> None:
    source = '''
class Public:
    def method(self): ...
    def _private(self): ...
    @property
    def told(self):
        """Told."""
def function(): ...
class _Hidden:
    def method(self): ...
'''
    assert list(undocumented(source)) == ["module", "Public", "Public.method", "function"]
    parser = argparse.ArgumentParser()
    parser.add_argument("--told", help="Told.")
    parser.add_argument("--untold")
    parser.add_argument("place", help=" ")
    assert flags_without_help(parser) == ["--untold", "place"]
