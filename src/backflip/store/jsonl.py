"""The feedback of a store as JSON lines: one line for each row, in the order queries, verdicts, retractions.

{"kind": "query", "query": {"prompt": {"text": "Say hi", "columns": {}}, "completions": ["hi", "no"], …}}
{"kind": "verdict", "verdict": {"query_id": "…", "annotator": "ann", "choice": "left", …}}
{"kind": "retraction", "retraction": {"verdict_id": "…", "annotator": "ann", "at": 1750000000.0}}
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from backflip.errors import DataError, StorageError
from backflip.records import Query, Verdict
from backflip.store import rows
from backflip.store.events import Log
from backflip.store.schema import queries, retractions, verdicts

Entry = Query | Verdict | rows.Retraction


def entry(values: Mapping[str, Any], where: str) -> Entry:
    """The record that one line of an export holds. Raises DataError, starting with `where`, if it holds none."""
    kind = values.get("kind")
    try:
        match kind:
            case "query":
                return Query.from_json(values["query"])
            case "verdict":
                return Verdict.from_json(values["verdict"])
            case "retraction":
                given = values["retraction"]
                return str(given["verdict_id"]), str(given["annotator"]), float(given["at"])
    except KeyError as problem:
        raise DataError(f"{where}: a {kind} without {problem}") from problem
    except (TypeError, ValueError, AttributeError) as problem:
        raise DataError(f"{where}: not a {kind} that backflip wrote: {problem}") from problem
    raise DataError(f"{where}: kind is query, verdict or retraction, not {kind!r}")


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
            for values in _lines(connection):
                file.write(json.dumps(values, ensure_ascii=False) + "\n")
                number += 1
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


def _lines(connection: Connection) -> Iterator[dict[str, Any]]:
    for body in connection.scalars(select(queries.c.body).order_by(queries.c.row)):
        yield {"kind": "query", "query": json.loads(body)}
    for body in connection.scalars(select(verdicts.c.body).order_by(verdicts.c.row)):
        yield {"kind": "verdict", "verdict": json.loads(body)}
    taken_back = select(retractions.c.verdict_id, retractions.c.annotator, retractions.c.at)
    for verdict_id, annotator, at in connection.execute(taken_back.order_by(retractions.c.row)):
        yield {"kind": "retraction", "retraction": {"verdict_id": verdict_id, "annotator": annotator, "at": at}}
