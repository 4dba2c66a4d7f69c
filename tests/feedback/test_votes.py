"""Answers from other people's files: every format, a pair is one question whichever way round, and bad rows are counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backflip.errors import DataError
from backflip.feedback.votes import NOBODY, read_votes
from backflip.records import Query, Verdict
from backflip.store import Store
from backflip.store.projects import Projects

GOOD = {"prompt": "p", "left": "a", "right": "b", "winner": "left", "annotator": "ann"}


def file_of(folder: Path, *rows: Any) -> Path:
    path = folder / "votes.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def said(path: Path, **options: Any) -> list[tuple[str, float]]:
    """Who said what of the pair: P(a is better)."""
    queries, found = {}, []
    for _, entry in read_votes(path, **options).entries:
        if isinstance(entry, Query):
            queries[entry.id] = entry
        elif isinstance(entry, Verdict):
            [comparison] = entry.comparisons(queries[entry.query_id])
            found.append((entry.annotator, comparison.p_left if comparison.left == "a" else 1 - comparison.p_left))
    return found


def test_every_way_to_say_that_a_is_better(tmp_path: Path) -> None:
    rows = [
        GOOD, {**GOOD, "winner": "a"}, {**GOOD, "left": "b", "right": "a", "winner": "right"},
        {"prompt": "p", "chosen": "a", "rejected": "b", "worker": "ann"},
        {"prompt": "p", "completions": ["b", "a"], "rank": [2, 1], "labeler": "ann"},
        {"prompt": "p", "completions": ["a", "b"], "ratings": [5, 4.5], "user": "ann"},
        {**GOOD, "left_policy": "x", "right_policy": "y", "winner": "x"},
    ]  # fmt: skip
    assert said(file_of(tmp_path, *rows)) == [("ann", 1.0)] * 7
    assert said(file_of(tmp_path, {**GOOD, "winner": "tie"}, {**GOOD, "annotator": ""})) == [("ann", 0.5), (NOBODY, 1.0)]


def test_a_pair_is_one_question_and_the_side_it_stood_on_is_kept(tmp_path: Path) -> None:
    path = file_of(tmp_path, GOOD, {**GOOD, "left": "b", "right": "a", "winner": "right", "annotator": "ben"})
    entries = [entry for _, entry in read_votes(path).entries]
    assert len({e.id for e in entries if isinstance(e, Query)}) == 1
    first, second = (e for e in entries if isinstance(e, Verdict))
    assert first.choice == second.choice
    assert {first.shown_first, second.shown_first} == {0, 1}


def test_chosen_texts_do_not_all_stand_on_one_side(tmp_path: Path) -> None:
    path = file_of(tmp_path, *({"prompt": "p", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(40)))
    choices = [e.choice for _, e in read_votes(path).entries if isinstance(e, Verdict)]
    assert 8 <= choices.count("left") <= 32


def test_dialogues_of_hh_have_their_prompt_in_common(tmp_path: Path) -> None:
    hh = "\n\nHuman: Hi\n\nAssistant: {}"
    path = file_of(tmp_path, {"chosen": hh.format("a"), "rejected": hh.format("b")})
    [query] = [e for _, e in read_votes(path).entries if isinstance(e, Query)]
    assert query.prompt.plain == "\n\nHuman: Hi\n\nAssistant:"
    assert sorted(query.completions) == [" a", " b"]


def test_csv_with_policies_for_sides(tmp_path: Path) -> None:
    path = tmp_path / "votes.csv"
    path.write_text(
        "prompt,left,right,winner,worker\n8,GPT 4,Weaver,left,58\n8,Weaver,GPT 4,tie,58\n9,Weaver,Weaver,tie,1\n,a,b,left,2\n"
    )
    found = read_votes(path, purpose="arena", sides_are_policies=True)
    queries = [e for _, e in found.entries if isinstance(e, Query)]
    assert len({q.id for q in queries}) == 1
    assert sorted(queries[0].policies) == ["GPT 4", "Weaver"]
    assert queries[0].policies == queries[0].completions
    assert queries[0].purpose == "arena"
    assert [e.at for _, e in found.entries if isinstance(e, Verdict)] == [0.0, 1.0], "the same person answered again"
    assert found.n_excluded == 2
    assert found.notes == [
        f"1 row was left out: a text is compared with itself (first: {path}, line 4)",
        f"1 row was left out: column 'prompt' is missing (first: {path}, line 5)",
    ]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({**GOOD, "right": "a"}, "a text is compared with itself"),
        ({**GOOD, "right": None}, "column 'right' is missing"),
        ({"prompt": "p", "left": "a", "winner": "left"}, "column 'right' is missing"),
        ({**GOOD, "prompt": None}, "column 'prompt' is missing"),
        ({**GOOD, "left": 3}, "column 'left' is not text"),
        ({**GOOD, "winner": "both of them"}, "the winner is neither left, right nor tie"),
        ({**GOOD, "winner": None}, "the winner is neither left, right nor tie"),
        ({**GOOD, "ms": "soon"}, "a time is not a number"),
        ({"prompt": "p", "chosen": "a", "rejected": "a"}, "a text is compared with itself"),
        ({"prompt": "p", "chosen": "a"}, "column 'rejected' is missing"),
        ({"chosen": "a", "rejected": "b"}, "column 'prompt' is missing"),
        ({"prompt": "p", "completions": ["a", "b"], "ratings": [1, float("nan")]}, "something that is no finite number"),
        ({"prompt": "p", "completions": ["a", "b"], "ratings": [1]}, "does not hold a number for every completion"),
        ({"prompt": "p", "completions": ["a", "a"], "rank": [1, 2]}, "a text is compared with itself"),
        ({"prompt": "p", "completions": ["a"]}, "at least two completions"),
        ({"prompt": "p", "completions": ["a", 3]}, "a completion is not text"),
        ({"prompt": "p", "answer": "a"}, "there are no columns"),
        ({**GOOD, "prompt": 3}, "prompt"),
    ],
)  # fmt: skip
def test_a_bad_row_is_left_out_and_counted(bad: dict[str, Any], reason: str, tmp_path: Path) -> None:
    found = read_votes(file_of(tmp_path, GOOD, bad, bad))
    assert len(found.entries) == 2
    [(why, (n, where))] = found.excluded.items()
    assert reason in why
    assert n == 2
    assert where.endswith("line 2")
    with pytest.raises(DataError, match="no question and no answer"):
        read_votes(file_of(tmp_path, bad))


def test_an_export_is_read_as_it_is_and_a_damaged_one_refused(tmp_path: Path) -> None:
    with Store(tmp_path / "a.db") as store:
        Projects(store).add_entries(read_votes(file_of(tmp_path, GOOD)).entries, by="test")
        store.export_jsonl(tmp_path / "all.jsonl")
    with Store(tmp_path / "b.db") as store:
        entries = read_votes(tmp_path / "all.jsonl").entries
        assert Projects(store).add_entries(entries, by="test") == 2
        assert Projects(store).add_entries(entries, by="test") == 0, "imported twice is imported once"
        assert store.comparisons()[0].chosen == "a"
    with pytest.raises(DataError, match="kind is query, verdict or retraction"):
        read_votes(file_of(tmp_path, {"kind": "opinion"}))


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(b"prompt,left\n\xff,a\n")
    with pytest.raises(DataError, match="not UTF-8"):
        read_votes(path)
    path.write_text('prompt,left\n"a" b,c\n')
    with pytest.raises(DataError, match="not CSV"):
        read_votes(path)
    with pytest.raises(DataError, match="there is no file"):
        read_votes(tmp_path / "none.csv")
