"""The feedback of a store as JSON lines: one line for each row, in the order queries, verdicts, retractions.

{"kind": "query", "query": {"prompt": {"text": "Say hi", "columns": {}}, "completions": ["hi", "no"], …}}
{"kind": "verdict", "verdict": {"query_id": "…", "annotator": "ann", "choice": "left", …}}
{"kind": "retraction", "retraction": {"verdict_id": "…", "annotator": "ann", "at": 1750000000.0}}
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar

from sqlalchemy import Connection, select

from backflip.errors import DataError, StorageError
from backflip.records import Query, Verdict
from backflip.store import rows
from backflip.store.events import Log
from backflip.store.schema import queries, retractions, verdicts

Entry = Query | Verdict | rows.Retraction
Sound = TypeVar("Sound", Query, Verdict)
DEEPEST = 50


def entry(values: Mapping[str, Any], where: str) -> Entry:
    """The record that one line of an export holds. Raises DataError, starting with `where`, if it holds none."""
    kind = values.get("kind")
    try:
        match kind:
            case "query":
                return sound(Query.from_json(values["query"]))
            case "verdict":
                return sound(Verdict.from_json(values["verdict"]))
            case "retraction":
                given = values["retraction"]
                return _text(given["verdict_id"]), _text(given["annotator"]), _time(given["at"])
    except KeyError as problem:
        raise DataError(f"{where}: a {kind} without {problem}") from problem
    except (TypeError, ValueError, OverflowError, AttributeError) as problem:
        raise DataError(f"{where}: not a {kind} that backflip wrote: {problem}") from problem
    raise DataError(f"{where}: kind is query, verdict or retraction, not {kind!r}")


def sound(record: Sound) -> Sound:
    """The record, if its fields hold texts and numbers where they should: a line of JSON may hold anything anywhere.

    Raises TypeError or ValueError, the latter also for columns nested more than `DEEPEST` levels.
    """
    if isinstance(record, Verdict):
        for text in (record.query_id, record.annotator, record.note, record.code):
            _text(text)
        for number in (record.shown_first, record.ms, record.strength, *(i for group in record.ranking for i in group)):
            if not isinstance(number, int) or isinstance(number, bool):
                raise TypeError(f"{number!r} is not a whole number")
        _time(record.at)
        return record
    said = record.prompt.text
    for text in (said,) if isinstance(said, str) else (part for turn in said for part in (turn.role, turn.content)):
        _text(text)
    for text in (record.purpose, *record.completions, *record.policies):
        _text(text)
    if not isinstance(record.prompt.columns, Mapping):
        raise TypeError(f"a prompt's columns are an object, not {record.prompt.columns!r:.60}")
    _plain(record.prompt.columns)
    return record


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.60} is not text")
    return value


def _time(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise TypeError(f"{value!r:.60} is not a number of seconds")
    return float(value)


def _plain(value: object) -> None:
    """Raise ValueError for what strict JSON cannot hold, and for what is nested so deep that reading it back could fail."""
    level: list[object] = [value]
    for _ in range(DEEPEST):
        if any(isinstance(each, float) and not math.isfinite(each) for each in level):
            raise ValueError("a column holds a number that is not finite")
        inside = (each.values() if isinstance(each, Mapping) else each for each in level if isinstance(each, Mapping | list))
        level = [part for parts in inside for part in parts]
        if not level:
            return
    raise ValueError(f"columns are nested more than {DEEPEST} levels deep")


def read_file(path: Path) -> list[tuple[str, Entry]]:
    """Every record of an export with its file and line. Raises DataError."""
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise DataError(f"{path} cannot be read: {problem.strerror}") from problem
    found: list[tuple[str, Entry]] = []
    for number, line in enumerate(content.split(b"\n"), 1):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            values = json.loads(line.decode())
        except (ValueError, RecursionError) as problem:
            raise DataError(f"{where}: not a line of JSON: {problem}") from problem
        if not isinstance(values, dict):
            raise DataError(f"{where}: expected an object, not a {type(values).__name__}")
        found.append((where, entry(values, where)))
    return found


def insert_all(log: Log, entries: Iterable[tuple[str, Entry]]) -> int:
    """Store entries in the order given; the number that was new."""
    new = 0
    for where, record in entries:
        match record:
            case Query():
                new += rows.insert_query(log.connection, record, where)
            case Verdict():
                new += rows.insert_verdict(log, record, where)
            case _:
                new += rows.insert_retraction(log, record, where)
    return new


def write_file(connection: Connection, path: Path) -> int:
    """Write every row to `path`, through a temporary file beside it that then takes its name."""
    number = 0
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", newline="\n", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = Path(file.name)
            number = write_lines(connection, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        temporary = None
    except OSError as problem:
        raise StorageError(f"{path} cannot be written: {problem.strerror}") from problem
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return number


def write_lines(connection: Connection, file: IO[str]) -> int:
    """Write every row as a line; the number of lines."""
    number = 0
    for values in _lines(connection):
        file.write(json.dumps(values, ensure_ascii=False) + "\n")
        number += 1
    return number


def _lines(connection: Connection) -> Iterator[dict[str, Any]]:
    for body in connection.scalars(select(queries.c.body).order_by(queries.c.row)):
        yield {"kind": "query", "query": json.loads(body)}
    for body in connection.scalars(select(verdicts.c.body).order_by(verdicts.c.row)):
        yield {"kind": "verdict", "verdict": json.loads(body)}
    taken_back = select(retractions.c.verdict_id, retractions.c.annotator, retractions.c.at)
    for verdict_id, annotator, at in connection.execute(taken_back.order_by(retractions.c.row)):
        yield {"kind": "retraction", "retraction": {"verdict_id": verdict_id, "annotator": annotator, "at": at}}
