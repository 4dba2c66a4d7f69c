"""One row of a preference data set, in any of the usual formats, to the comparisons it states."""

from __future__ import annotations

from collections.abc import Iterable

from backflip.errors import DataError
from backflip.feedback.dialogues import (
    HUMAN,
    as_completion,
    messages_of,
    shared_messages,
    split_hh_pair,
)
from backflip.feedback.rows import Row, list_of, missing_column, number_of, text_of
from backflip.records import Comparison, Message, Prompt, Query, Verdict
from backflip.store import jsonl

ANSWERS = "answers"
"""The column in which `backflip feedback aggregate` keeps how many people said what."""
FORMATS = "prompt, chosen and rejected; or prompt, completions and rank"


def from_rows(rows: Iterable[Row], purpose: str | None) -> list[Comparison]:
    """The comparisons of all rows in their order; rows of a store's export are joined with each other.

    Raises DataError naming the row, also for a verdict whose query does not stand before it.
    """
    found: list[tuple[str, Comparison]] = []
    queries: dict[str, Query] = {}
    retracted: set[str] = set()
    for row in rows:
        if "kind" not in row.values:
            found += [("", comparison) for comparison in from_row(row)]
            continue
        match jsonl.entry(row.values, row.where):
            case Query() as query:
                queries[query.id] = query
            case Verdict() as verdict:
                found += [(verdict.id, c) for c in _from_verdict(verdict, queries, purpose, row.where)]
            case (verdict_id, _, _):
                retracted.add(verdict_id)
    return [comparison for verdict_id, comparison in found if verdict_id not in retracted]


def _from_verdict(verdict: Verdict, queries: dict[str, Query], purpose: str | None, where: str) -> list[Comparison]:
    query = queries.get(verdict.query_id)
    if query is None:
        raise DataError(f"{where}: query {verdict.query_id} does not stand before its verdict")
    if purpose not in (None, query.purpose):
        return []
    try:
        return verdict.comparisons(query)
    except ValueError as problem:
        raise DataError(f"{where}: {problem}") from problem


def from_row(row: Row) -> list[Comparison]:
    """The comparisons of one row, the chosen completion on the left; see `readers` for the formats."""
    columns = row.values
    if {"left", "right", "p_left"} <= columns.keys():
        return [_own(row)]
    if {"completions", "rank"} & columns.keys():
        return _ranked(row)
    for column in ("chosen", "rejected"):
        if column not in columns:
            raise missing_column(row, column, FORMATS)
    margin = number_of(row, "margin") if columns.get("margin") is not None else 0.0
    prompt, chosen, rejected = _pair(row)
    return [Comparison(prompt, chosen, rejected, p_left=1.0, margin=margin)]


def prompt_of(row: Row) -> Prompt:
    """The prompt column: text, messages, or what `Prompt.to_json` writes."""
    value = row.values["prompt"]
    if isinstance(value, dict) and "text" in value:
        return Prompt.from_json(value)
    return Prompt(value if isinstance(value, str) else messages_of(row, "prompt"))


def _pair(row: Row) -> tuple[Prompt, str, str]:
    columns = row.values
    plain = isinstance(columns["chosen"], str) and isinstance(columns["rejected"], str)
    before = next((name for name in ("prompt", "conversations") if name in columns), None)
    if plain and before is not None:
        return prompt_of(Row(row.where, {"prompt": columns[before]})), text_of(row, "chosen"), text_of(row, "rejected")
    if plain:
        if HUMAN not in columns["chosen"] or HUMAN not in columns["rejected"]:
            raise missing_column(row, "prompt", FORMATS)
        asked, chosen, rejected = split_hh_pair(columns["chosen"], columns["rejected"], row.where)
        return Prompt(asked), chosen, rejected
    return _conversations(row, before)


def _conversations(row: Row, before: str | None) -> tuple[Prompt, str, str]:
    """Messages on at least one side: the prompt is the prompt column and what the two sides begin with in common."""
    asked = messages_of(row, before, speaker="user") if before is not None else ()
    left, right = messages_of(row, "chosen"), messages_of(row, "rejected")
    shared = shared_messages(left, right)
    common, left, right = left[:shared], left[shared:], right[shared:]
    prompt = common if _repeats(common, asked) else (*asked, *common)
    if not prompt:
        raise missing_column(row, "prompt", FORMATS)
    return Prompt(prompt), as_completion(left), as_completion(right)


def _repeats(common: tuple[Message, ...], asked: tuple[Message, ...]) -> bool:
    """Whether the two sides already begin with the prompt, as in data sets that state it twice."""
    return common[: len(asked)] == asked or (len(asked) == 1 and asked[0] in common)


def _ranked(row: Row) -> list[Comparison]:
    for column in ("prompt", "completions", "rank"):
        if column not in row.values:
            raise missing_column(row, column, FORMATS)
    completions, rank = list_of(row, "completions"), list_of(row, "rank")
    if len(completions) != len(rank) or len(rank) < 2:
        raise DataError(f"{row.where}: {len(completions)} completions with {len(rank)} ranks; give two or more of each")
    if not all(isinstance(text, str) for text in completions):
        raise DataError(f"{row.where}: column 'completions' should be a list of texts")
    if not all(isinstance(place, int | float) and not isinstance(place, bool) and place == place for place in rank):
        raise DataError(f"{row.where}: column 'rank' should be a list of numbers, not {rank!r:.60}")
    groups = tuple(tuple(i for i, r in enumerate(rank) if r == place) for place in sorted(set(rank)))
    query = Query(prompt_of(row), tuple(completions))
    return Verdict(query.id, "", "ranking", ranking=groups).comparisons(query)


def _own(row: Row) -> Comparison:
    for column in ("left", "right"):
        text_of(row, column)
    number_of(row, "p_left")
    if "prompt" not in row.values:
        raise missing_column(row, "prompt", FORMATS)
    try:
        believed = {name: value for name, value in row.values.items() if name != ANSWERS}
        return Comparison.from_json({**believed, "prompt": prompt_of(row)})
    except (TypeError, ValueError) as problem:
        raise DataError(f"{row.where}: {problem}") from problem
