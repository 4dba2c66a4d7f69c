"""Files that people bring: what an export of a store holds, and rows in the formats that `feedback.readers` knows.

A file is taken as a whole or not at all; what is wrong is said with its line.

    prompt, completions             a question
    prompt, chosen, rejected; …     a question too: which of the two was chosen is known to whoever made the file, not to us
    kind, query / verdict / …       what `Store.export_jsonl` wrote, as it was
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from backflip.errors import DataError
from backflip.feedback.comparison_rows import from_row
from backflip.feedback.readers import queries_of
from backflip.feedback.rows import Row, rows_of
from backflip.records import Comparison, Query
from backflip.store import jsonl
from backflip.store.projects import gold_purpose

NAME = "the file"
UNPACKED = 256 * 2**20
GZIP = b"\x1f\x8b"


def entries(content: bytes, purpose: str | None) -> list[tuple[str, jsonl.Entry]]:
    """What a file holds, each record with its place. Questions that do not come from an export get `purpose` (None: their own).

    Raises DataError.
    """
    found: list[tuple[str, jsonl.Entry]] = []
    for row in _rows(content):
        with _at(row):
            if "kind" in row.values:
                found.append((row.where, jsonl.entry(row.values, row.where)))
            else:
                found += [(row.where, _filed(query, purpose)) for query in _questions(row)]
    return found


def golds(content: bytes, purpose: str) -> list[tuple[Query, str]]:
    """Questions of a purpose with the answer that each deserves, which a row says with `choice` or by what was chosen.

    Raises DataError.
    """
    found = []
    for row in _rows(content):
        with _at(row):
            if "choice" in row.values and "completions" in row.values:
                known = [(query, str(row.values["choice"])) for query in queries_of(row)]
            else:
                known = [(_asked(each), _choice(each)) for each in from_row(row)]
        for query, choice in known:
            if choice not in ("left", "right", "tie") or len(query.completions) != 2:
                raise DataError(f"{row.where}: a known answer is left, right or tie, to a pair")
            found.append((_filed(query, gold_purpose(purpose)), choice))
    return found


@contextmanager
def _at(row: Row) -> Iterator[None]:
    """Say where, of whatever is wrong with a row."""
    try:
        yield
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError, RecursionError) as problem:
        raise DataError(f"{row.where}: {problem}") from problem


def _questions(row: Row) -> list[Query]:
    if {"prompt", "completions"} <= row.values.keys():
        return queries_of(row)
    return [_asked(each) for each in from_row(row)]


def _asked(known: Comparison) -> Query:
    names = (known.left_policy, known.right_policy)
    return jsonl.sound(Query(known.prompt, (known.left, known.right), names if any(names) else ()))


def _choice(known: Comparison) -> str:
    return "tie" if known.p_left == 0.5 else "left" if known.p_left > 0.5 else "right"


def _filed(query: Query, purpose: str | None) -> Query:
    return query if purpose is None else dataclasses.replace(query, purpose=purpose)


def _rows(content: bytes) -> list[Row]:
    rows = rows_of(_unpacked(content).removeprefix(b"\xef\xbb\xbf"), NAME)
    if not rows:
        raise DataError(f"{NAME} holds no rows")
    return rows


def _unpacked(content: bytes) -> bytes:
    """The content, unpacked if it is gzipped; a few bytes that would become gigabytes are refused."""
    if not content.startswith(GZIP):
        return content
    unpacker: Any = zlib.decompressobj(wbits=31)
    try:
        unpacked: bytes = unpacker.decompress(content, UNPACKED)
    except zlib.error as problem:
        raise DataError(f"{NAME} is a damaged gzip file: {problem}") from problem
    if unpacker.unconsumed_tail:
        raise DataError(f"{NAME} holds more than {UNPACKED // 2**20} MiB when it is unpacked; send it in parts")
    if not unpacker.eof:
        raise DataError(f"{NAME} is a damaged gzip file: its end is missing")
    return unpacked
