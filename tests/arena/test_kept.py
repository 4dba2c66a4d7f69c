"""Matches from what a run has kept: found by looking, the loop's own matches, and nobody's words in another's mouth."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tests.kept_runs import answers, write_run

from backflip.arena import match_queries
from backflip.arena.games import Games
from backflip.arena.kept import KeptRun, Offer, add_kept, kept_runs, match_seeds, offers, read_kept
from backflip.errors import DataError
from backflip.records import Prompt, Sample, Verdict
from backflip.store import Store

THREE = {name: answers(name) for name in ("sft", "round1", "round2")}


def one_run(root: Path) -> KeptRun:
    [run] = kept_runs(root)
    return run


def test_runs_are_found_by_looking(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    write_run(root, "b", THREE, seed=7)
    write_run(root, "deep/er", {"sft": ["x"], "round1": ["y\u2028z"]})
    write_run(root, "alone", {"sft": ["x"]})
    outside = write_run(tmp_path, "outside", THREE)
    (root / "link").symlink_to(outside)
    (root / "b" / "arena" / "secret.jsonl").symlink_to(outside / "arena" / "sft.jsonl")
    linked = write_run(root, "linked", {})
    (linked / "arena").rmdir()
    (linked / "arena").symlink_to(outside / "arena")
    (root / "no run" / "arena").mkdir(parents=True)
    found = kept_runs(root)
    assert [(run.id, run.names) for run in found] == [("b", ("sft", "round1", "round2")), ("deep/er", ("sft", "round1"))]
    assert found[0].seeds == match_seeds(7)
    assert [sample.text for sample in read_kept(found[1], "round1")] == ["y\u2028z"]
    assert kept_runs(tmp_path / "nowhere") == []


def test_everything_is_offered_once_and_what_was_asked_no_more(tmp_path: Path) -> None:
    texts = {**THREE, "round2": [THREE["sft"][0], *THREE["round2"][1:]]}
    write_run(tmp_path / "runs", "loop", texts)
    run = one_run(tmp_path / "runs")
    with Store(tmp_path / "f.db") as store:
        pairs = [("sft", "round1"), ("sft", "round2"), ("round1", "round2")]
        assert offers(Games(), [run]) == [Offer("loop", a, b, 4) for a, b in pairs]
        added = add_kept(store, Games(), run, [("round2", "sft")], limit=3)
        assert (len(added.queries), added.same_text) == (2, 1)
        games = Games.of(store)
        assert offers(games, [run]) == [Offer("loop", "sft", "round1", 4), Offer("loop", "sft", "round2", 1),
                                        Offer("loop", "round1", "round2", 4)]  # fmt: skip
        assert [game.p_left for game in games.played()] == [0.5]
        added = add_kept(store, games, run, pairs, limit=100)
        assert (len(added.queries), added.same_text) == (9, 0)
        games = Games.of(store)
        assert offers(games, [run]) == []
        assert add_kept(store, games, run, pairs, limit=100).queries == []


def test_the_matches_are_those_of_the_loop(tmp_path: Path) -> None:
    from tests.tiny_models import tiny

    from backflip.rounds.loop import Loop
    from backflip.runs import Run
    from backflip.seeds import Seeds
    from backflip.settings import Rounds

    class Judge:
        name = "judge"

        def answer(self, query: Any) -> Verdict:
            return Verdict(query.id, self.name, "left")

    with Run.open(tmp_path / "runs" / "loop", kind="rounds", settings={"seed": 5}, quiet=True) as opened:
        write_run(tmp_path, "other", THREE)
        (tmp_path / "other" / "arena").rename(opened.folder / "arena")
        prompts = [sample.prompt for sample in read_kept(one_run(tmp_path / "runs"), "sft")]
        loop = Loop(run=opened, start=tiny, prompts=prompts, arena_prompts=prompts, settings=Rounds(),
                    seeds=Seeds(5).child("loop"), labeler=Judge())  # fmt: skip
        loop.play(["sft", "round1", "round2"])
        filed = {query.id for query in loop.store.queries("arena")}
        loop.close()
    with Store(tmp_path / "f.db") as store:
        add_kept(
            store, Games(), one_run(tmp_path / "runs"), [("sft", "round1"), ("sft", "round2"), ("round1", "round2")], limit=9
        )
        assert {query.id for query in store.queries("arena")} == filed
        assert len(filed) == 12


def test_another_run_does_not_speak_for_a_policy_of_the_same_name(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    write_run(root, "ours", THREE)
    write_run(root, "theirs", {name: [f"their {text}" for text in texts] for name, texts in THREE.items()})
    write_run(root, "elsewhere", {"sft": answers("sft"), "new": answers("new")}, prompts="q")
    elsewhere, ours, theirs = kept_runs(root)
    with Store(root / "ours" / "feedback.db") as store:
        store.add_queries(match_queries({n: read_kept(ours, n)[:2] for n in ("sft", "round1")}, seeds=ours.seeds))
        games = Games.of(store)
        found = {(offer.run, offer.a, offer.b): offer.n for offer in offers(games, [elsewhere, ours, theirs])}
        # Round 2 is new to the arena, so either run could bring it; who is known already comes from one only.
        assert found == {("ours", "sft", "round1"): 2, ("ours", "sft", "round2"): 4, ("ours", "round1", "round2"): 4}
        with pytest.raises(DataError, match="run theirs has no samples of 'sft' that could be matched here"):
            add_kept(store, games, theirs, [("sft", "round2")], limit=9)
        with pytest.raises(DataError, match="no samples of 'new'"):
            add_kept(store, games, ours, [("sft", "new")], limit=9)
        # The run that the store lies in is the one meant, whatever else was asked under these names.
        assert offers(games, [theirs], home=root / "theirs") != []
        assert len(store.queries()) == 2


def test_what_is_damaged_offers_nothing(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "run", THREE)
    run = one_run(tmp_path)
    with (folder / "arena" / "round1.jsonl").open("a") as file:
        file.write('{"prompt": {"text": "p"}}\n')
    with pytest.raises(DataError, match="line 5: this is no sample"):
        read_kept(run, "round1")
    (folder / "arena" / "round2.jsonl").write_bytes(b"\xff\xfe\n")
    assert offers(Games(), [run]) == []
    os.remove(folder / "arena" / "sft.jsonl")
    with pytest.raises(DataError, match="cannot be read"):
        read_kept(run, "sft")
    (folder / "run.json").write_text("[]")
    assert one_run(tmp_path).seeds == match_seeds(0)


def test_policies_that_answered_other_prompts_cannot_meet(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "run", {"sft": answers("sft")})
    rows = [Sample(Prompt(f"other{i}"), f"new {i}").to_json() for i in range(4)]
    (folder / "arena" / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = one_run(tmp_path)
    assert offers(Games(), [run]) == []
    with Store(tmp_path / "f.db") as store:
        assert add_kept(store, Games(), run, [("sft", "new")], limit=9).queries == []
