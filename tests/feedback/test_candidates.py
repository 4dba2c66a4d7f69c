"""What might be asked: rows on one prompt belong together, however they are written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backflip.errors import DataError
from backflip.feedback.candidates import read_candidates


def file_of(folder: Path, *rows: Any) -> Path:
    path = folder / "pool.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_rows_of_one_prompt_belong_together(tmp_path: Path) -> None:
    path = file_of(
        tmp_path, {"prompt": "p", "completion": "a", "policy": "x", "reward": 0.5}, {"prompt": "q", "completion": "alone"},
        {"prompt": "p", "completions": ["b", "c"], "policies": ["y", "z"]}, {"prompt": "p", "completion": "d"},
    )  # fmt: skip
    [query] = read_candidates(path)
    assert query.prompt.plain == "p"
    assert query.completions == ("a", "b", "c", "d")
    assert query.policies == ("x", "y", "z", "")
    [plain] = read_candidates(file_of(tmp_path, {"prompt": "p", "completions": ["a", "b"]}))
    assert plain.policies == ()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"completion": "a"}, "no column 'prompt'"),
        ({"prompt": "p", "completion": 3}, "should be text"),
        ({"prompt": "p"}, "completions"),
    ],
)
def test_a_bad_row_is_named(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"line 1: .*{message}"):
        read_candidates(file_of(tmp_path, row))
    with pytest.raises(DataError, match="no prompt with two completions"):
        read_candidates(file_of(tmp_path, {"prompt": "p", "completion": "a"}))
