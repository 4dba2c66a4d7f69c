"""One row of a preference data set, in any of the usual formats, to the comparisons it states."""

from __future__ import annotations

import math
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
FORMATS = "prompt, chosen and rejected; or prompt, completions and rank, ratings or best"
LISTED = ("rank", "ratings", "best")


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
        return _listed(row)
    for column in ("chosen", "rejected"):
        if column not in columns:
            raise missing_column(row, column, FORMATS)
    prompt, chosen, rejected = _pair(row)
    return [_made(row, prompt, chosen, rejected)]


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


def _made(row: Row, prompt: Prompt, chosen: str, rejected: str) -> Comparison:
    """The comparison of a chosen and a rejected completion, with whatever else the row says of it."""

    def number(name: str) -> float | None:
        return number_of(row, name) if row.values.get(name) is not None else None

    tie = row.values.get("tie", False)
    if not isinstance(tie, bool | None):
        raise DataError(f"{row.where}: column 'tie' should be true or false, not {tie!r}")
    strength = number("strength") or 0.0
    try:
        if strength != int(strength):
            raise ValueError(f"a strength is a whole number, not {strength}")
        return Comparison(
            prompt, chosen, rejected, p_left=0.5 if tie else 1.0, margin=number("margin") or 0.0, annotator=_annotator(row),
            strength=int(strength), left_rating=number("score_chosen"), right_rating=number("score_rejected"),
        )  # fmt: skip
    except ValueError as problem:
        raise DataError(f"{row.where}: {problem}") from problem


def _annotator(row: Row) -> str:
    named = row.values.get("annotator")
    if isinstance(named, int) and not isinstance(named, bool):
        return str(named)
    return text_of(row, "annotator") if named is not None else ""


def _listed(row: Row) -> list[Comparison]:
    """Several completions with their ranks (1 is best), their ratings (higher is better) or the number of the best (from 0)."""
    how = next((name for name in LISTED if name in row.values), "rank")
    for column in ("prompt", "completions", how):
        if column not in row.values:
            raise missing_column(row, column, FORMATS)
    completions = list_of(row, "completions")
    if not all(isinstance(text, str) for text in completions):
        raise DataError(f"{row.where}: column 'completions' should be a list of texts")
    query = Query(prompt_of(row), tuple(completions)) if len(completions) > 1 else None
    if how == "best":
        return _best(row, query)
    told = list_of(row, how)
    if query is None or len(completions) != len(told):
        what = "ranks" if how == "rank" else how
        raise DataError(f"{row.where}: {len(completions)} completions with {len(told)} {what}; give two or more of each")
    if not all(isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in told):
        raise DataError(f"{row.where}: column {how!r} should be a list of numbers, not {told!r:.60}")
    if how == "ratings":
        return Verdict(query.id, _annotator(row), "rating", scores=tuple(told)).comparisons(query)
    groups = tuple(tuple(i for i, r in enumerate(told) if r == place) for place in sorted(set(told)))
    return Verdict(query.id, _annotator(row), "ranking", ranking=groups).comparisons(query)


def _best(row: Row, query: Query | None) -> list[Comparison]:
    """The best against each of the others; of those nothing is known among themselves."""
    best = row.values["best"]
    if query is None or isinstance(best, bool) or not isinstance(best, int) or not 0 <= best < len(query.completions):
        raise DataError(f"{row.where}: column 'best' should be the number of one of two or more completions, not {best!r}")
    others = [text for i, text in enumerate(query.completions) if i != best]
    return [
        Comparison(
            query.prompt, query.completions[best], other, p_left=1.0, weight=1.0 / len(others), annotator=_annotator(row),
            query_id=query.id,
        )
        for other in others
    ]  # fmt: skip


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
