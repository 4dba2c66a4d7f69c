"""Comparisons, prompts, demonstrations, queries and texts from files in the formats people already have.

The format is found row by row, so one file may mix them:

    comparisons     prompt, chosen, rejected                      text, or lists of {role, content}; also, if wanted, margin,
                                                                  strength (1 to 4), tie, annotator, score_chosen and
                                                                  score_rejected
                    chosen, rejected                              conversations with a common beginning, or HH-RLHF
                    conversations, chosen, rejected               {from, value} messages
                    prompt, completions, rank                     1 is best, equal ranks tie: all pairs, weight 1/C(K,2)
                    prompt, completions, ratings                  numbers, higher is better: all pairs, weight 1/C(K,2)
                    prompt, completions, best                     the number of the best, from 0: it against each other one
                    prompt, left, right, p_left …                 what `Comparison.to_json` writes
                    kind, query / verdict / retraction            what `Store.export_jsonl` writes
    demonstrations  prompt, completion · messages · conversations · chosen (an HH-RLHF dialogue) · text
                    question, answer                              as in GSM8K
    prompts         prompt · messages · conversations · chosen (an HH-RLHF dialogue) · question, or lines of plain text

Every function raises DataError naming the file, and the line where there is one.
"""

from __future__ import annotations

import re
from pathlib import Path

from backflip.errors import DataError
from backflip.feedback import comparison_rows
from backflip.feedback.dialogues import is_hh, messages_of, split_hh
from backflip.feedback.rows import (
    Demonstration,
    Row,
    list_of,
    load_rows,
    missing_column,
    read_content,
    text_of,
)
from backflip.records import Comparison, Message, Prompt, Query
from backflip.store import jsonl


def read_comparisons(path: str | Path, purpose: str | None = "train") -> list[Comparison]:
    """The comparisons in a file or hub data set, in its order, the chosen one on the left.

    `purpose` concerns rows of a store's export alone: only verdicts on queries of that purpose count (None: all).
    """
    return comparison_rows.from_rows(load_rows(path), purpose)


def read_prompts(path: str | Path, column: str = "prompt") -> list[Prompt]:
    """The prompts in a file or hub data set. The other columns of a row become the prompt's `columns`.

    `column` names the one that holds the prompt: text, or the messages of a conversation. A `.txt` file gives one
    prompt for every line that is not blank.
    """
    if _is_plain(path):
        return [Prompt(line) for line in _lines(Path(path)) if line.strip()]
    return [_prompt(row, column) for row in load_rows(path)]


def read_demonstrations(path: str | Path) -> list[Demonstration]:
    """What to imitate: the completion is the last turn of the assistant, the prompt everything before it.

    Plain text (`text`, or a document of a `.txt` file) is a completion of the empty prompt.
    """
    if _is_plain(path):
        return [Demonstration(Prompt(""), text) for text in read_texts(path)]
    return [_demonstration(row) for row in load_rows(path)]


def read_texts(path: str | Path) -> list[str]:
    """Documents for plain language modelling: the `text` column, or the paragraphs of a `.txt` file.

    Blank lines part the documents of a `.txt` file; in one without any blank line every line is a document.
    """
    if not _is_plain(path):
        return [_text(row) for row in load_rows(path)]
    content = "\n".join(_lines(Path(path))).strip("\n")
    parts = re.split(r"\n[ \t]*\n", content) if re.search(r"\n[ \t]*\n", content) else content.split("\n")
    texts = [part.strip("\n") for part in parts if part.strip()]
    if not texts:
        raise DataError(f"{path} holds no text")
    return texts


def read_queries(path: str | Path) -> list[Query]:
    """Questions to be answered: `prompt`, `completions` and, if wanted, `policies`, `purpose` and `form`.

    The queries of a store's export are read too; its verdicts are passed over.
    """
    found = [query for row in load_rows(path) for query in queries_of(row)]
    if not found:
        raise DataError(f"{path} holds no queries")
    return found


def _is_plain(path: str | Path) -> bool:
    return str(path).removesuffix(".gz").endswith(".txt")


def _lines(path: Path) -> list[str]:
    try:
        text = read_content(path).decode()
    except UnicodeDecodeError as problem:
        raise DataError(f"{path}: not UTF-8 text ({problem.reason} at byte {problem.start})") from problem
    if not text.strip():
        raise DataError(f"{path} holds no text")
    return text.replace("\r\n", "\n").split("\n")


def _text(row: Row) -> str:
    if "text" not in row.values:
        raise missing_column(row, "text", "text")
    return text_of(row, "text")


def _prompt(row: Row, column: str) -> Prompt:
    def others(used: str) -> dict[str, object]:
        return {name: value for name, value in row.values.items() if name != used}

    if column in row.values:
        value = row.values[column]
        return Prompt(value if isinstance(value, str) else messages_of(row, column), others(column))
    for conversation in ("messages", "conversations"):
        if conversation in row.values:
            turns = messages_of(row, conversation)
            asked = turns[:-1] if turns[-1].role == "assistant" and len(turns) > 1 else turns
            return Prompt(asked, others(conversation))
    if is_hh(row.values.get("chosen")):
        return Prompt(split_hh(text_of(row, "chosen"))[0], others("chosen"))
    if column == "prompt" and "question" in row.values:
        return Prompt(text_of(row, "question"), others("question"))
    raise missing_column(row, column, f"{column}, messages, conversations or question")


def _demonstration(row: Row) -> Demonstration:
    columns = row.values
    if "prompt" in columns and "completion" in columns:
        said = messages_of(row, "completion")
        if isinstance(columns["prompt"], str) and isinstance(columns["completion"], str):
            return Demonstration(Prompt(columns["prompt"]), columns["completion"])
        return _last_turn((*messages_of(row, "prompt", speaker="user"), *said), row)
    for conversation in ("messages", "conversations"):
        if conversation in columns:
            return _last_turn(messages_of(row, conversation), row)
    if is_hh(columns.get("chosen")):
        asked, answer = split_hh(text_of(row, "chosen"))
        return Demonstration(Prompt(asked), answer)
    if "question" in columns and "answer" in columns:
        return Demonstration(Prompt(text_of(row, "question")), text_of(row, "answer"))
    if "text" in columns:
        return Demonstration(Prompt(""), text_of(row, "text"))
    raise missing_column(
        row,
        "completion" if "prompt" in columns else "prompt",
        "prompt and completion, messages, conversations, question and answer, or text",
    )


def _last_turn(turns: tuple[Message, ...], row: Row) -> Demonstration:
    last = max((i for i, turn in enumerate(turns) if turn.role == "assistant"), default=0)
    if last == 0:
        raise DataError(f"{row.where}: no assistant turn after a prompt, so there is nothing to imitate")
    return Demonstration(Prompt(turns[:last]), turns[last].content)


def queries_of(row: Row) -> list[Query]:
    """The query in a row, as `read_queries` reads it; none in a row of an export that holds something else."""
    if "kind" in row.values:
        entry = jsonl.entry(row.values, row.where)
        return [entry] if isinstance(entry, Query) else []
    for column in ("prompt", "completions"):
        if column not in row.values:
            raise missing_column(row, column, "prompt and completions")
    extra = {name: row.values[name] for name in ("policies", "purpose", "form") if name in row.values}
    try:
        prompt = comparison_rows.prompt_of(row)
        return [jsonl.sound(Query(prompt, tuple(map(str, list_of(row, "completions"))), **extra))]
    except (TypeError, ValueError) as problem:
        raise DataError(f"{row.where}: {problem}") from problem
