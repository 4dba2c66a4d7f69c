"""`backflip store`: a copy, a check, a repair, and sentences for what cannot be."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from backflip.cli.main import main
from backflip.records import Prompt, Query, Verdict
from backflip.store import Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    query = Query(Prompt("p"), ("a", "b"))
    with Store(tmp_path / "feedback.db") as store:
        store.add_queries([query])
        store.add_verdicts([Verdict(query.id, "ann", "left")])
    return tmp_path / "feedback.db"


def test_backup_verify_restore(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "copy.db"
    assert main(["store", "backup", str(path), "--to", str(copy)]) == 0
    assert main(["store", "verify", str(copy)]) == 0
    assert main(["store", "restore", str(copy), "--to", str(path)]) == 2
    assert main(["store", "restore", str(copy), "--to", str(path), "--overwrite"]) == 0
    told = capsys.readouterr()
    sound = "1 queries, 1 verdicts, 0 retractions, 1 events, all sound; last hash "
    assert told.out.count(sound) == 3
    assert told.out.splitlines()[-1].endswith(f"the old store is now {path}.replaced1")
    assert "exists already" in told.err


def test_verify_says_no_and_rebuild_puts_it_right(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = sqlite3.connect(path)
    raw.execute("DROP TRIGGER verdicts_no_delete")
    raw.execute("DELETE FROM verdicts")
    raw.commit()
    raw.close()
    assert main(["store", "verify", str(path)]) == 2
    assert f"row 1 of verdicts is missing (compared with the events); `backflip store rebuild {path}`" in capsys.readouterr().err
    assert main(["store", "rebuild", str(path)]) == 0
    assert main(["store", "rebuild", str(path)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "rebuilt; 1 queries, 1 verdicts" in first
    assert "nothing to rebuild; 1 queries, 1 verdicts" in second


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["backup", "F"], "`backflip store backup` needs --to FILE"),
        (["verify", "F", "--to", "x.db"], "`backflip store verify` takes no --to"),
        (["backup", "F", "--to", "x.db", "--overwrite"], "takes no --overwrite"),
        (["verify", "gone.db"], "there is no store at gone.db"),
        (["rebuild", "gone.db"], "there is no store at gone.db"),
        (["vacuum", "F"], "invalid choice: 'vacuum'"),
    ],
)
def test_what_cannot_be_is_a_sentence(
    path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    assert main(["store", *(str(path) if word == "F" else word for word in words)]) == 2
    assert message in capsys.readouterr().err
    assert [each.name for each in path.parent.iterdir()] == ["feedback.db"]
