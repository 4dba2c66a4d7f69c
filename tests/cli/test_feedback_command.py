"""`backflip feedback`: import, report, aggregate, next and export as a person uses them, and a sentence for each mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backflip.feedback.readers import read_comparisons
from backflip.feedback.report import random_share
from backflip.store import Store


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def db(tmp_path: Path, backflip: Any) -> Path:
    """A store with three labelers' answers to twenty pairs, two rows of the file being of no use."""
    rows = [
        {"prompt": f"p{i}", "left": "good", "right": "bad dull", "winner": "left" if (i + j) % 5 else "right", "worker": name}
        for j, name in enumerate(("ann", "ben", "cai"))
        for i in range(20)
    ]
    votes = lines(tmp_path / "votes.jsonl", [*rows, {"prompt": "p", "left": "x", "right": "x", "winner": "tie"}, {"prompt": "p"}])
    said = backflip("feedback", "import", tmp_path / "a.db", votes)
    assert said.code == 0, said.err
    assert f"{votes}: 80 new of 120 questions and answers" in said.out
    assert "1 row was left out: a text is compared with itself" in said.out
    assert "line 62" in said.out
    return tmp_path / "a.db"


def candidates(folder: Path, n: int = 12) -> Path:
    rows = [{"prompt": f"new {i}", "completions": ["good", "bad", "dull dull"], "policies": ["x", "y", "z"]} for i in range(n)]
    return lines(folder / "candidates.jsonl", rows)


def test_report_prints_and_writes_a_page(db: Path, tmp_path: Path, backflip: Any) -> None:
    said = backflip("feedback", "report", db, "--output", tmp_path / "page")
    assert said.code == 0
    for word in ("60 answers and 0 skips by 3 labelers to 20 of 20 questions", "Krippendorff's", "first", "ann", "×"):
        assert word in said.out
    assert "known" not in said.out, "a column that says nothing is not shown"
    figures = json.loads((tmp_path / "page" / "feedback.json").read_text())
    assert figures["quality"]["alpha_nominal"]["n"] == 20
    assert "Krippendorff" in (tmp_path / "page" / "report.html").read_text()


@pytest.mark.parametrize("method", ["shares", "dawid-skene"])
def test_aggregate_writes_what_reward_reads(method: str, db: Path, tmp_path: Path, backflip: Any) -> None:
    said = backflip("feedback", "aggregate", db, "--method", method, "--to", tmp_path / "all.jsonl")
    assert said.code == 0
    assert f"20 comparisons by {method}" in said.out
    assert ("ann: reliability" in said.out) == (method == "dawid-skene")
    assert len(read_comparisons(tmp_path / "all.jsonl")) == 20


def test_export_as_a_store_and_as_comparisons(db: Path, tmp_path: Path, backflip: Any) -> None:
    assert "80 lines" in backflip("feedback", "export", db, "--to", tmp_path / "all.jsonl").out
    assert "60 comparisons" in backflip("feedback", "export", db, "--comparisons", "--to", tmp_path / "pairs.jsonl").out
    assert len(read_comparisons(tmp_path / "all.jsonl")) == len(read_comparisons(tmp_path / "pairs.jsonl")) == 60
    assert "80 new of 80" in backflip("feedback", "import", tmp_path / "b.db", tmp_path / "all.jsonl").out


def test_next_at_random_files_questions_once(db: Path, tmp_path: Path, backflip: Any) -> None:
    argv = ("feedback", "next", db, "--candidates", candidates(tmp_path), "--n", 10, "--random-share", 0.3)
    said = backflip(*argv, "--rule", "explore")
    assert said.code == 0, said.err
    assert "10 questions in" in said.out
    assert "7 by explore, 3 at random" in said.out
    with Store(db) as store:
        new = [query for query in store.queries("train") if query.prompt.plain.startswith("new")]
        assert len(new) == 10 == len({query.prompt.id for query in new}), "one for each prompt"
        assert len(random_share(store)) == 3
        places = {"good": "x", "bad": "y", "dull dull": "z"}
        assert all(query.policies == tuple(places[text] for text in query.completions) for query in new)
    assert "7 explore" in backflip("feedback", "report", db).out
    again = backflip(*argv, "--per-prompt", 3)
    assert "10 asked before" in again.out
    assert "7 by random, 3 at random" in again.out


def test_next_by_what_two_reward_models_do_not_know(db: Path, tmp_path: Path, kit: Any, backflip: Any) -> None:
    from tests.tiny_models import tiny

    from backflip.rewards.learned import RewardModel
    from backflip.seeds import Seeds

    RewardModel.from_policy(tiny(), seeds=Seeds(7), max_length=64).save(tmp_path / "other")
    argv = ("feedback", "next", db, "--candidates", candidates(tmp_path), "--n", 6, "--random-share", 0, "--rule", "information")
    said = backflip(*argv, "--reward", kit.reward, tmp_path / "other")
    assert said.code == 0, said.err
    assert "6 by information, 0 at random" in said.out
    with Store(db) as store:
        [event] = store.events_of("asked", 10)
    assert all(row["value"] >= 0 for row in event.payload["questions"])
    one = backflip(*argv, "--reward", kit.reward)
    assert one.code == 2
    assert "two reward models" in one.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("report", "gone.db"), "there is no store at gone.db"),
        (("report", "A", "--to", "x"), "`backflip feedback report` takes no --to; export and aggregate do"),
        (("export", "A"), "`backflip feedback export` needs --to FILE"),
        (("import", "A"), "give the files to import"),
        (("report", "A", "x.jsonl"), "report takes no files"),
        (("report", "A", "--purpose", "arena"), "holds no questions of purpose 'arena'"),
        (("aggregate", "A", "--to", "x", "--purpose", "arena"), "there is nothing to aggregate"),
        (("next", "A", "--rule", "near-tie", "--candidates", "C"), "rule 'near-tie' needs --reward FOLDER"),
        (("next", "A", "--candidates", "C", "--n", "0"), "at least 1"),
        (("next", "A", "--candidates", "gone.jsonl"), "there is no file gone.jsonl"),
        (("guess", "A"), "invalid choice: 'guess'"),
    ],
)
def test_a_mistake_is_a_sentence(words: tuple[str, ...], message: str, db: Path, tmp_path: Path, backflip: Any) -> None:
    place = {"A": db, "C": candidates(tmp_path)}
    said = backflip("feedback", *(place.get(word, word) for word in words))
    assert (said.code, said.out) == (2, "")
    assert message in said.err


def test_nothing_new_to_ask_is_a_sentence(tmp_path: Path, backflip: Any) -> None:
    path = lines(tmp_path / "c.jsonl", [{"prompt": "p", "completions": ["a", "a"]}])
    said = backflip("feedback", "next", tmp_path / "new.db", "--candidates", path)
    assert said.code == 2
    assert "nothing new to ask; 1 pairs of one text" in said.err
