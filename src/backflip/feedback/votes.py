"""Answers that others collected, as questions and verdicts, and a count of the rows that hold none.

    prompt, left, right, winner [, annotator]        winner: left, right, tie (or the text or policy that won); JSON or CSV
    prompt, chosen, rejected [, annotator]           which side each was shown on is not known
    prompt, completions, rank or ratings [, …]       a ranking (1 is best, equal ranks tie) or a rating
    prompt, completions                              a question without an answer
    kind, query / verdict / retraction               what `Store.export_jsonl` writes

`worker` or `labeler` stand for `annotator`, `left_policy` and `right_policy` (or `policies`) say who wrote what. A row with
something missing is not guessed at: it is left out, counted, and the first of its kind is named. No torch.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backflip.errors import DataError
from backflip.feedback.comparison_rows import prompt_of
from backflip.feedback.dialogues import HUMAN, split_hh_pair
from backflip.feedback.rows import Row, load_rows, read_content
from backflip.records import Prompt, Query, Verdict, content_id
from backflip.store import jsonl

NOBODY = "unknown"
"""Whose answers those are where a row does not say."""
WHO = ("annotator", "worker", "labeler", "user")


@dataclass(slots=True)
class Votes:
    """What a file holds: entries in their order, and what was left out, by reason, as how often and where first."""

    entries: list[tuple[str, jsonl.Entry]] = field(default_factory=list)
    excluded: dict[str, tuple[int, str]] = field(default_factory=dict)

    @property
    def n_excluded(self) -> int:
        """How many rows were left out."""
        return sum(n for n, _ in self.excluded.values())

    @property
    def notes(self) -> list[str]:
        """One sentence for each reason."""
        return [
            f"{n} row{'s were' if n > 1 else ' was'} left out: {reason} (first: {where})"
            for reason, (n, where) in self.excluded.items()
        ]


class _Unusable(Exception):
    """Why a row is left out."""


def read_votes(path: str | Path, *, purpose: str = "train", sides_are_policies: bool = False) -> Votes:
    """The questions and answers in a file. With `sides_are_policies` left and right name policies whose texts are not known.

    A row says the same thing whenever it is read, so a file imported twice is imported once. Where a labeler answers a question
    twice in one file the later row is an answer at a later time. Raises DataError for a file that cannot be read at all, for a
    damaged row of an export, and where every row was left out.
    """
    found, twice = Votes(), _Counter()
    for row in _rows(path):
        try:
            found.entries += [(row.where, entry) for entry in _entries(row, purpose, sides_are_policies, twice)]
        except _Unusable as why:
            n, first = found.excluded.get(str(why), (0, row.where))
            found.excluded[str(why)] = (n + 1, first)
    if not found.entries:
        raise DataError(f"{path} holds no question and no answer that can be used; " + "; ".join(found.notes))
    return found


def _rows(path: str | Path) -> Iterator[Row]:
    if not str(path).removesuffix(".gz").endswith((".csv", ".tsv")):
        yield from load_rows(path)
        return
    try:
        text = read_content(Path(path)).decode()
    except UnicodeDecodeError as problem:
        raise DataError(f"{path}: not UTF-8 text ({problem.reason} at byte {problem.start})") from problem
    reader = csv.DictReader(io.StringIO(text), delimiter="\t" if ".tsv" in str(path) else ",", strict=True)
    try:
        for values in reader:
            known = {name: value for name, value in values.items() if name is not None and value not in (None, "")}
            yield Row(f"{path}, line {reader.line_num}", known)
    except csv.Error as problem:
        raise DataError(f"{path}, line {reader.line_num}: not CSV: {problem}") from problem


class _Counter:
    """How often each labeler has answered each question in this file, so that answering again is another answer."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], int] = {}

    def at(self, query_id: str, annotator: str) -> float:
        key = (query_id, annotator)
        self._seen[key] = self._seen.get(key, -1) + 1
        return float(self._seen[key])


def _entries(row: Row, purpose: str, sides_are_policies: bool, twice: _Counter) -> list[jsonl.Entry]:
    values = row.values
    if "kind" in values:
        return [jsonl.entry(values, row.where)]
    try:
        if "left" in values or "right" in values or "winner" in values:
            query, answer = _sided(row, purpose, sides_are_policies)
        elif "chosen" in values or "rejected" in values:
            query, answer = _chosen(row, purpose)
        else:
            query, answer = _listed(row, purpose)
        jsonl.sound(query)
    except (DataError, TypeError, ValueError, KeyError) as problem:
        said = str(problem).removeprefix(f"{row.where}: ")
        raise _Unusable(said if len(said) < 120 else said[:117] + "…") from problem
    if answer is None:
        return [query]
    annotator = _annotator(values)
    ms = _number(values.get("ms", 0))
    at = _number(values["at"]) if "at" in values else twice.at(query.id, annotator)
    if ms is None or at is None:
        raise _Unusable("a time is not a number")
    try:
        return [query, jsonl.sound(Verdict(query.id, annotator, ms=max(0, int(ms)), at=at, **answer))]
    except (TypeError, ValueError) as problem:
        raise _Unusable(str(problem)) from problem


def _sided(row: Row, purpose: str, sides_are_policies: bool) -> tuple[Query, dict[str, Any] | None]:
    values = row.values
    left, right = _text(values, "left"), _text(values, "right")
    if left == right:
        raise _Unusable("a text is compared with itself")
    policies = (left, right) if sides_are_policies else _policies(values)
    texts = _ordered(left, right)
    place = texts.index(left)
    query = Query(_prompt(row), texts, policies if place == 0 else policies[::-1], purpose)
    if "winner" not in values and "choice" not in values:
        return query, None
    said = str(values.get("winner", values.get("choice"))).strip()
    names = {"left": "left", "right": "right", "tie": "tie", "skip": "skip", left: "left", right: "right"}
    names |= {"a": "left", "b": "right", "model_a": "left", "model_b": "right", "equal": "tie", "both": "tie"}
    if policies and policies[0] != policies[1]:
        names |= {policies[0]: "left", policies[1]: "right"}
    if said not in names:
        raise _Unusable("the winner is neither left, right nor tie")
    choice = names[said] if place == 0 else {"left": "right", "right": "left"}.get(names[said], names[said])
    return query, {"choice": choice, "shown_first": place}


def _chosen(row: Row, purpose: str) -> tuple[Query, dict[str, Any]]:
    values = row.values
    chosen, rejected = _text(values, "chosen"), _text(values, "rejected")
    if chosen == rejected:
        raise _Unusable("a text is compared with itself")
    if "prompt" in values:
        prompt = _prompt(row)
    elif HUMAN in chosen and HUMAN in rejected:
        asked, chosen, rejected = split_hh_pair(chosen, rejected, row.where)
        prompt = Prompt(asked)
    else:
        raise _Unusable("column 'prompt' is missing")
    texts = _ordered(chosen, rejected)
    return Query(prompt, texts, (), purpose), {"choice": "left" if texts[0] == chosen else "right"}


def _ordered(a: str, b: str) -> tuple[str, str]:
    """Two texts in an order that depends on them alone, so that a pair is one question whichever side each stood on, and so
    that the chosen text, which files put first, does not always come first here."""
    low, high = sorted((a, b))
    return (low, high) if int(content_id("side", low, high), 16) % 2 else (high, low)


def _listed(row: Row, purpose: str) -> tuple[Query, dict[str, Any] | None]:
    values = row.values
    if not isinstance(values.get("completions"), list):
        raise _Unusable("there are no columns 'left' and 'right', 'chosen' and 'rejected', or 'completions'")
    texts = values["completions"]
    if not all(isinstance(text, str) for text in texts):
        raise _Unusable("a completion is not text")
    if len(set(texts)) < len(texts):
        raise _Unusable("a text is compared with itself")
    query = Query(_prompt(row), tuple(texts), _policies(values), str(values.get("purpose", purpose)))
    for column in ("rank", "ratings"):
        if values.get(column) is None:
            continue
        numbers = [_number(value) for value in values[column]] if isinstance(values[column], list) else []
        if len(numbers) != len(texts):
            raise _Unusable(f"column {column!r} does not hold a number for every completion")
        if any(number is None for number in numbers):
            raise _Unusable(f"column {column!r} holds something that is no finite number")
        if column == "ratings":
            return query, {"choice": "rating", "scores": tuple(numbers)}
        groups = tuple(tuple(i for i, n in enumerate(numbers) if n == place) for place in sorted(set(numbers)))  # type: ignore[type-var]
        return query, {"choice": "ranking", "ranking": groups}
    return query, None


def _prompt(row: Row) -> Prompt:
    if row.values.get("prompt") is None:
        raise _Unusable("column 'prompt' is missing")
    return prompt_of(row)


def _text(values: Mapping[str, Any], column: str) -> str:
    if values.get(column) is None:
        raise _Unusable(f"column {column!r} is missing")
    if not isinstance(values[column], str):
        raise _Unusable(f"column {column!r} is not text")
    return str(values[column])


def _policies(values: Mapping[str, Any]) -> tuple[str, ...]:
    if "policies" in values:
        return tuple(map(str, values["policies"]))
    if "left_policy" in values and "right_policy" in values:
        return (str(values["left_policy"]), str(values["right_policy"]))
    return ()


def _annotator(values: Mapping[str, Any]) -> str:
    found = next((values[name] for name in WHO if values.get(name) not in (None, "")), NOBODY)
    return str(found)


def _number(value: object) -> float | None:
    """A finite number, also one that CSV wrote as text; None for anything else."""
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None
