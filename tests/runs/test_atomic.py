"""A written file is the old one or the new one, and a refusal is one sentence."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from backflip.errors import StorageError
from backflip.runs import atomic
from backflip.runs.atomic import write_atomic


def test_content_is_replaced_and_nothing_is_left_beside(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a.json", "old")
    write_atomic(tmp_path / "a.json", "neü".encode())
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == "neü"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "the disk is full; free some space"),
        (errno.EDQUOT, "quota is used up"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission denied; choose a folder"),
    ],
)
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_refusing_disk_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: str, call: str
) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, "old")

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(atomic.os, call, refuse)
    with pytest.raises(StorageError, match=words) as caught:
        write_atomic(path, "new")
    monkeypatch.undo()
    assert str(path) in str(caught.value)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_file_in_the_way_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="a file stands where a folder is needed"):
        write_atomic(tmp_path / "file" / "a.json", "x")


def test_an_unlisted_reason_is_told_in_the_words_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file or directory"):
        write_atomic(tmp_path / "absent" / "a.json", "x")
