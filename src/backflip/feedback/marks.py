"""Texts marked right or wrong, as a whole or step by step, from files in the formats people already have.

prompt, completion, label                   true or false, 1 or 0
prompt, completions, labels                 the steps of one text and a label for each; joined by line breaks
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backflip.errors import DataError
from backflip.feedback.comparison_rows import prompt_of
from backflip.feedback.rows import Row, list_of, load_rows, missing_column, text_of
from backflip.records import Prompt, Record

FORMATS = "prompt, completion and label; or prompt, completions and labels, one for each step"


@dataclass(frozen=True, slots=True)
class Marked(Record):
    """A completion and what is right of it: each mark is where a step ends, in characters, and whether it is right.

    A text that is marked as a whole has one mark, at its end; one marked by steps is right if all of them are.

    >>> Marked(Prompt("2+2="), "4", ((1, True),)).right
    True
    """

    prompt: Prompt
    completion: str
    marks: tuple[tuple[int, bool], ...]

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, Prompt):
            object.__setattr__(self, "prompt", Prompt.from_json(self.prompt))
        object.__setattr__(self, "marks", tuple((int(end), bool(right)) for end, right in self.marks))
        if not self.marks or any(not 0 <= end <= len(self.completion) for end, _ in self.marks):
            raise ValueError(
                f"a text of {len(self.completion)} characters is marked at one place or more in it, not {self.marks}"
            )

    @property
    def right(self) -> bool:
        """Whether all that is marked is right."""
        return all(right for _, right in self.marks)


def read_marked(path: str | Path) -> list[Marked]:
    """The marked texts in a file or hub data set. Raises DataError naming the row."""
    return [marked_of(row) for row in load_rows(path)]


def marked_of(row: Row) -> Marked:
    """The marked text of one row. Raises DataError."""
    columns = row.values
    if "completions" in columns and "labels" in columns:
        return _steps(row)
    for column in ("prompt", "completion", "label"):
        if column not in columns:
            raise missing_column(row, column, FORMATS)
    text = text_of(row, "completion")
    return Marked(prompt_of(row), text, ((len(text), _truth(row, "label", columns["label"])),))


def _steps(row: Row) -> Marked:
    steps, labels = list_of(row, "completions"), list_of(row, "labels")
    if not steps or len(steps) != len(labels) or not all(isinstance(step, str) for step in steps):
        raise DataError(f"{row.where}: {len(steps)} steps with {len(labels)} labels; give a text and a label for each step")
    if "prompt" not in row.values:
        raise missing_column(row, "prompt", FORMATS)
    ends, text = [], ""
    for i, step in enumerate(steps):
        text += step if step.endswith("\n") or i + 1 == len(steps) else step + "\n"
        ends.append(len(text))
    return Marked(
        prompt_of(row), text, tuple((end, _truth(row, "labels", label)) for end, label in zip(ends, labels, strict=True))
    )


def _truth(row: Row, column: str, value: Any) -> bool:
    if not isinstance(value, bool) and value not in (0, 1):
        raise DataError(f"{row.where}: column {column!r} should say true or false, or 1 or 0, not {value!r:.40}")
    return bool(value)
