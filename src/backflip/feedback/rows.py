"""Rows from anywhere: JSON lines, a JSON list, either gzipped, or a data set of the Hugging Face hub by name.

Every row keeps where it came from, so that whatever is found wrong later can name the file and the line.
"""

from __future__ import annotations

import difflib
import gzip
import json
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from backflip.errors import DataError
from backflip.records import Prompt, Record


class Row(NamedTuple):
    """The values of a row by column, and where they stand: "prefs.jsonl, line 3"."""

    where: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Demonstration(Record):
    """What somebody showed the policy: a good completion of a prompt.

    >>> Demonstration(Prompt("2+2="), "4").to_json()["completion"]
    '4'
    """

    prompt: Prompt
    completion: str

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, Prompt):
            object.__setattr__(self, "prompt", Prompt.from_json(self.prompt))


def load_rows(path_or_name: str | Path) -> list[Row]:
    """The rows of a file, or of a hub data set "org/name" or "org/name:split" (split "train" unless said).

    A file holds one JSON object per line or one JSON list of objects, gzipped or not; its content decides, not its
    name. Blank lines are skipped. Raises DataError: missing, unreadable, malformed (with the line), or without rows.
    """
    path = Path(path_or_name)
    from_hub = not path.exists() and _is_hub_name(str(path_or_name))
    rows = _hub_rows(str(path_or_name)) if from_hub else _file_rows(path)
    if not rows:
        raise DataError(f"{path_or_name} holds no rows")
    return rows


def read_content(path: Path) -> bytes:
    """The bytes of a file, unpacked when it is gzipped. Raises DataError."""
    try:
        content = path.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
    except FileNotFoundError as problem:
        raise DataError(f"there is no file {path}") from problem
    except IsADirectoryError as problem:
        raise DataError(f"{path} is a folder; give one of the files in it") from problem
    except (EOFError, gzip.BadGzipFile, zlib.error) as problem:
        raise DataError(f"{path} is a damaged gzip file: {problem}") from problem
    except OSError as problem:
        raise DataError(f"{path} cannot be read: {problem.strerror}") from problem
    return content.removeprefix(b"\xef\xbb\xbf")


def missing_column(row: Row, expected: str, formats: str) -> DataError:
    """The error for a row that fits no format: what was expected, what was found, and the nearest of it."""
    found = ", ".join(repr(name) for name in row.values) or "none"
    near = difflib.get_close_matches(expected, [str(name) for name in row.values], n=1, cutoff=0.6)
    hint = f"; is {near[0]!r} meant?" if near else ""
    return DataError(f"{row.where}: no column {expected!r}; found {found}{hint} (expected {formats})")


def text_of(row: Row, column: str) -> str:
    """The text in a column. Raises DataError when it is something else."""
    value = row.values[column]
    if not isinstance(value, str):
        raise DataError(f"{row.where}: column {column!r} should be text, not {_kind(value)}")
    return value


def list_of(row: Row, column: str) -> list[Any]:
    """The list in a column. Raises DataError when it is something else."""
    value = row.values[column]
    if not isinstance(value, list):
        raise DataError(f"{row.where}: column {column!r} should be a list, not {_kind(value)}")
    return value


def number_of(row: Row, column: str) -> float:
    """The finite number in a column. Raises DataError when it is something else."""
    value = row.values[column]
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) == float("inf"):
        raise DataError(f"{row.where}: column {column!r} should be a number, not {value!r}")
    return float(value)


def _kind(value: object) -> str:
    names = {str: "text", list: "a list", dict: "an object", type(None): "empty", bool: "true or false"}
    return names.get(type(value), f"the number {value!r}")


def _file_rows(path: Path) -> list[Row]:
    return rows_of(read_content(path), str(path))


def rows_of(content: bytes, name: str) -> list[Row]:
    """The rows in the content of a file, which errors call `name`: JSON lines, or one JSON list. Raises DataError."""
    if content.lstrip().startswith(b"["):
        values = _json(content, name)
        if not isinstance(values, list):
            raise DataError(f"{name} should hold a list of objects, not {_kind(values)}")
        return [_row(f"{name}, item {number}", value) for number, value in enumerate(values, 1)]
    lines = enumerate(content.split(b"\n"), 1)
    return [_row(f"{name}, line {number}", _json(line, f"{name}, line {number}")) for number, line in lines if line.strip()]


def _json(content: bytes, where: str) -> Any:
    try:
        return json.loads(content.decode())
    except json.JSONDecodeError as problem:
        at = f", line {problem.lineno}" if problem.lineno > 1 else ""
        raise DataError(f"{where}{at}: not valid JSON: {problem.msg} at column {problem.colno}") from problem
    except UnicodeDecodeError as problem:
        raise DataError(f"{where}: not UTF-8 text ({problem.reason} at byte {problem.start})") from problem
    except RecursionError as problem:
        raise DataError(f"{where}: JSON nested too deeply") from problem
    except ValueError as problem:  # a number of thousands of digits
        raise DataError(f"{where}: {problem}") from problem


def _row(where: str, values: object) -> Row:
    if not isinstance(values, dict):
        raise DataError(f"{where}: expected an object with columns, not {_kind(values)}")
    if _has_half_character(values):
        raise DataError(f"{where}: holds half a Unicode character (a lone \\ud800…\\udfff escape); mend or drop it")
    return Row(where, values)


def _has_half_character(value: object) -> bool:
    if isinstance(value, str):
        return not value.isascii() and re.search("[\ud800-\udfff]", value) is not None
    inside: Iterable[object] = (*value, *value.values()) if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(_has_half_character(part) for part in inside)


def _is_hub_name(name: str) -> bool:
    files = (".json", ".jsonl", ".txt", ".gz", ".csv", ".tsv", ".parquet")
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+(:\w+)?", name) is not None and not name.endswith(files)


def _hub_rows(name: str) -> list[Row]:
    try:
        import datasets
    except ImportError as problem:
        raise DataError(
            f"there is no file {name}; to load it as a Hugging Face data set: pip install 'backflip[data]'"
        ) from problem
    source, _, split = name.partition(":")
    try:
        found = datasets.load_dataset(source, split=split or "train")
    except Exception as problem:  # the library raises a dozen kinds, network and parsing included
        raise DataError(f"there is no file {name}, nor can it be loaded as a data set: {problem}") from problem
    return [_row(f"{name}, row {number}", dict(values)) for number, values in enumerate(found, 1)]
