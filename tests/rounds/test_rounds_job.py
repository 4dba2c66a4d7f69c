"""The whole loop as a job: with a reward model that plays the annotator, with recorded comparisons, with adapters."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tests.tiny_models import tiny
from tests.tiny_rounds import LOOP, loop_job, recorded_job

from backflip.arena.matches import SAME_TEXT
from backflip.config import from_dict
from backflip.errors import DataError
from backflip.feedback.labelers import Oracle
from backflip.feedback.report import random_share
from backflip.job_settings import RoundsJob
from backflip.records import Comparison, Prompt, Query, Verdict
from backflip.rewards.learned import RewardModel
from backflip.rewards.protocol import score
from backflip.rounds.job import rounds
from backflip.rounds.loop import Loop
from backflip.rounds.story import watched_rounds
from backflip.rounds.watched import answered
from backflip.runs import Run
from backflip.runs.logs import read_lines
from backflip.seeds import Seeds
from backflip.store import Store


def result_of(folder: Path) -> dict[str, Any]:
    """A job's result without what a rerun need not reproduce."""
    result = json.loads((folder / "result.json").read_text())
    return {name: value for name, value in result.items() if name != "seconds"}


def digest(folder: Path) -> dict[str, str]:
    """A fingerprint of every model and log under a folder."""
    kept = [p for pattern in ("*.safetensors", "metrics.jsonl", "*.jsonl") for p in folder.rglob(pattern)]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in kept if p.name != "timings.jsonl"}


@pytest.fixture(scope="module")
def annotated(policy_folder: Path, prompts_file: Path, annotator_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished job of two rounds in which a reward model plays the annotator."""
    folder = tmp_path_factory.mktemp("annotated") / "run"
    rounds(loop_job(policy_folder, prompts_file, folder, labeler=str(annotator_folder)), quiet=True)
    return folder


@pytest.fixture(scope="module")
def recorded(hh_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished job on recorded comparisons."""
    folder = tmp_path_factory.mktemp("recorded") / "run"
    rounds(recorded_job(hh_file, folder), quiet=True)
    return folder


def test_the_annotator_is_the_gold_and_every_generation_is_measured(annotated: Path, annotator_folder: Path) -> None:
    result = result_of(annotated)
    assert list(result["gold"]) == list(result["proxy"]) == ["sft", "round1", "round2"]
    gold = RewardModel.load(annotator_folder)
    rows = read_lines_of(annotated / "arena" / "round2.jsonl")
    prompts = [Prompt.from_json(row["prompt"]) for row in rows]
    assert result["gold"]["round2"] == pytest.approx(
        sum(score(gold, prompts, [row["text"] for row in rows])) / len(rows), abs=1e-5
    )
    assert "sentinel" not in result
    assert result["kl_target_nats"] == 10.0
    assert {line["what"].split()[0] for line in result["acceptance"]} == {"reward", "proxy", "gold", "KL"}
    logged = read_lines(annotated / "round1" / "ppo" / "metrics.jsonl")
    assert all("objective/gold" in row for row in logged)


def read_lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_store_holds_every_question_and_answer(annotated: Path, annotator_folder: Path) -> None:
    with Store(annotated / "feedback.db", read_only=True) as store:
        asked, arena = store.queries("train"), store.queries("arena")
        comparisons = store.comparisons()
        assert store.unanswered() == []
        same = [v for v in store.verdicts() if v.annotator == SAME_TEXT]
    assert 0 < len(asked) <= 16
    assert {name for query in asked for name in query.policies} == {"sft", "round1"}
    assert {frozenset(q.policies) for q in arena} <= {
        frozenset(pair) for pair in (("sft", "round1"), ("sft", "round2"), ("round1", "round2"))
    }
    assert len(arena) + len(same) == 3 * 5
    gold = RewardModel.load(annotator_folder)
    for c in comparisons:
        left, right = score(gold, [c.prompt] * 2, [c.left, c.right])
        assert c.p_left == (1.0 if left > right else 0.0)  # an annotator without noise says what its model thinks


def test_the_report_stands_in_one_file(annotated: Path, recorded: Path) -> None:
    page = (annotated / "report.html").read_text()
    assert "Gold reward" in page
    assert "round2" in page
    page = (recorded / "report.html").read_text()
    assert "Shorter reply right" in page
    assert "no gold curve" in page
    data = json.loads((recorded / "report.json").read_text())
    assert [chart["title"] for chart in data["charts"][:3]] == ["Reward by generation", "Proxy reward", "Sentinel"]
    assert len(data["samples"]) == 5  # as many as the arena has prompts; ten where there are ten


def test_a_finished_job_is_not_run_again(annotated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = json.loads((annotated / "run.json").read_text())["settings"]
    job = loop_job(Path("gone"), Path("gone.jsonl"), annotated)  # what it was made from is not needed any more
    before = digest(annotated)
    with pytest.raises(Exception, match="other settings"):
        rounds(job, quiet=True)
    again = loop_job(Path(run["policy"]), Path(run["data"]), annotated, labeler=run["labeler"])
    assert rounds(again) == annotated / "report.html"
    assert "this run is finished" in capsys.readouterr().err
    assert digest(annotated) == before


def test_finished_stages_are_skipped(annotated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = json.loads((annotated / "run.json").read_text())["settings"]
    job = loop_job(Path(run["policy"]), Path(run["data"]), annotated, labeler=run["labeler"])
    result, before = result_of(annotated), digest(annotated)
    (annotated / "result.json").unlink()
    for name in ("fit", "improve", "questions"):
        monkeypatch.setattr(Loop, name, refuse)
    rounds(job, quiet=True)
    assert result_of(annotated) == result
    assert digest(annotated) == before


def refuse(*args: object, **kwargs: object) -> None:
    raise AssertionError("this stage was finished")


def test_recorded_comparisons_stand_in_for_questions(recorded: Path) -> None:
    result = result_of(recorded)
    assert result["labeler"] == "recorded"
    assert result["comparisons"] == 35
    quality = result["reward_model"]
    assert quality["n"] == 5
    assert quality["measured_on"].startswith("recorded comparisons on prompts that nothing was trained on")
    assert {"accuracy_low", "accuracy_high", "shorter_accuracy", "sentinel_accuracy"} <= quality.keys()
    assert "gold" not in result
    assert result["gain"]["sentinel"]["n"] == 5
    with Store(recorded / "feedback.db", read_only=True) as store:
        assert store.queries("train") == []
        assert {v.annotator for v in store.verdicts()} <= {"sentinel", SAME_TEXT}
    assert not (recorded / "round1" / "questions.jsonl").exists()


def test_the_sentinel_never_reads_what_the_reward_model_read(recorded: Path) -> None:
    seen = [Comparison.from_json(row) for row in read_lines_of(recorded / "round1" / "comparisons.jsonl")]
    counts = {
        kind: json.loads((recorded / "round1" / kind / "result.json").read_text())["comparisons"]
        for kind in ("reward", "sentinel")
    }
    assert sum(counts.values()) == len(seen) == 35
    assert result_of(recorded)["reward_model"]["learned_from"] == counts["reward"]
    assert min(counts.values()) > 5
    logged = read_lines(recorded / "round1" / "ppo" / "metrics.jsonl")
    assert all(row["objective/sentinel"] != row["objective/scores"] for row in logged)


def test_a_crash_in_the_middle_changes_nothing(
    recorded: Path, hh_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    for name in ("fit", "improve", "arena_samples"):
        with monkeypatch.context() as broken:
            broken.setattr(Loop, name, refuse)
            with pytest.raises(AssertionError, match="finished"):
                rounds(recorded_job(hh_file, folder), quiet=True)
    rounds(recorded_job(hh_file, folder), quiet=True)
    assert result_of(folder) == result_of(recorded)
    assert digest(folder) == digest(recorded)


def test_adapters_are_merged_into_every_generation(
    policy_folder: Path, annotator_folder: Path, prompts_file: Path, tmp_path: Path
) -> None:
    job = loop_job(policy_folder, prompts_file, tmp_path / "run", labeler=str(annotator_folder), lora=2)
    rounds(job, quiet=True)
    first, last = (load_file(tmp_path / "run" / "generations" / name / "model.safetensors") for name in ("sft", "round2"))
    assert first.keys() == last.keys()
    changed = {name for name in first if not first[name].equal(last[name])}
    assert changed
    assert all("proj" in name for name in changed)  # linear layers alone: embeddings and norms are frozen


def test_a_tiny_policy_may_be_taught_through_adapters(recorded: Path, hh_file: Path, tmp_path: Path) -> None:
    rounds(recorded_job(hh_file, tmp_path / "run", lora=2), quiet=True)
    base = load_file(tmp_path / "run" / "base" / "model" / "model.safetensors")
    whole = load_file(recorded / "base" / "model" / "model.safetensors")
    assert all(base[name].equal(whole[name]) for name in whole)  # pretraining has nothing to adapt
    taught = load_file(tmp_path / "run" / "sft" / "model" / "model.safetensors")
    changed = {name for name in base if not base[name].equal(taught[name])}
    assert changed
    assert all("proj" in name for name in changed)


def test_a_policy_may_be_fine_tuned_first(policy_folder: Path, hh_file: Path, annotator_folder: Path, tmp_path: Path) -> None:
    job = recorded_job(hh_file, tmp_path / "run", policy=str(policy_folder), labeler=str(annotator_folder), lora=2, noise=0.5)
    rounds(job, quiet=True)
    assert not (tmp_path / "run" / "base").exists()
    assert json.loads((tmp_path / "run" / "sft" / "result.json").read_text())["steps"] == 3
    given, first = (
        load_file(folder / "model.safetensors") for folder in (policy_folder, tmp_path / "run" / "generations" / "sft")
    )
    assert any(not given[name].equal(first[name]) for name in given)
    assert set(result_of(tmp_path / "run")["gain"]) == {"proxy", "sentinel", "gold"}


def test_the_loop_alone_needs_only_an_oracle(tmp_path: Path) -> None:
    settings = from_dict(RoundsJob, {"policy": "x", "train": {**LOOP, "rounds": 1}}).train
    oracle = Oracle(lambda prompt, text: float(len(text)), seeds=Seeds(1), noise=0.0, temperature=0.0)
    prompts = [Prompt(f"the film {i}") for i in range(6)]
    with Run.open(tmp_path / "run", kind="rounds", settings=settings, quiet=True) as run:
        loop = Loop(run, tiny, prompts, prompts[:2], settings, Seeds(3), oracle)
        table = loop.go()
        assert {rating.policy for rating in table.ratings} == {"sft", "round1"}
        with pytest.raises(DataError, match="prompts"):
            Loop(run, tiny, [], prompts, settings, Seeds(3), oracle)
        assert all(len(c.chosen) >= len(c.rejected) for c in loop.comparisons(1))


class Contrary:
    """Answers as an oracle that likes length, but whenever a policy is to be verified, the one before is better."""

    name = "contrary"

    def __init__(self, verdicts: Mapping[str, str]) -> None:
        self.oracle = Oracle(lambda prompt, text: float(len(text)), seeds=Seeds(1), noise=0.0, temperature=0.0)
        self.verdicts = verdicts

    def answer(self, query: Query) -> Verdict:
        if query.purpose != "verify":
            return self.oracle.answer(query)
        old, new = sorted(query.policies, key=lambda name: "" if name == "sft" else name)
        better = new if self.verdicts[new] == "better" else old
        return Verdict(query.id, self.name, "left" if query.policies[0] == better else "right")


def verified(folder: Path, verdicts: Mapping[str, str], **changes: object) -> tuple[Loop, list[dict[str, Any]]]:
    """A loop whose policies are judged as told, and its decisions as they stand in its files."""
    settings = from_dict(RoundsJob, {"policy": "x", "train": {**LOOP, "rounds": 3, "verify": 12, **changes}}).train
    prompts = [Prompt(f"the film {i}") for i in range(20)]
    with Run.open(folder, kind="rounds", settings=settings, quiet=True) as run:
        loop = Loop(run, tiny, prompts[:16], prompts[16:], settings, Seeds(3), Contrary(verdicts))
        loop.go()
    return loop, [json.loads(path.read_text()) for path in sorted(folder.glob("round*/decision.json"))]


def test_a_policy_that_is_worse_is_dropped_and_the_next_round_starts_from_the_one_before(tmp_path: Path) -> None:
    loop, decisions = verified(tmp_path / "run", {"round1": "better", "round2": "worse", "round3": "better"})
    assert [d["act"] for d in decisions] == ["next", "roll back", "next"]
    assert [d["kept"] for d in decisions] == ["round1", "round1", "round3"]
    assert loop.final == "round3"
    asked = read_lines_of(tmp_path / "run" / "round3" / "questions.jsonl")
    assert {name for row in asked for name in row["policies"]} == {"round1"}, "questions are about the policy that was kept"
    assert loop.names() == ["sft", "round1", "round2", "round3"], "the arena has met the dropped one too"
    assert decisions[1]["evidence"]["win_rate"]["high"] < 0.5
    assert decisions[2]["evidence"]["staleness"] > decisions[0]["evidence"]["staleness"] == 0.0
    assert "newest_labels" not in decisions[0]["evidence"], "there was no reward model before the first"
    assert 0 <= decisions[1]["evidence"]["newest_labels"]["value"] <= 1
    verified_ = {c.left_policy for c in loop.comparisons(3)}
    with Store(tmp_path / "run" / "feedback.db", read_only=True) as store:
        assert len(store.comparisons(purpose="verify")) > 20
        assert len(loop.comparisons(3)) == len(store.comparisons()), "what verified a policy taught no reward model"
    assert verified_ == {"sft", "round1"}


def test_a_policy_that_people_like_less_is_an_alarm_in_its_decision_its_record_and_the_report(tmp_path: Path) -> None:
    verdicts = {"round1": "better", "round2": "worse", "round3": "better"}
    _, decisions = verified(tmp_path / "run", verdicts, watch={"every": 1, "prompts": 8})
    assert [[a["kind"] for a in d["evidence"].get("alarms", [])] for d in decisions] == [[], ["losing"], []]
    [alarm] = decisions[1]["evidence"]["alarms"]
    assert (alarm["act"], alarm["step"], alarm["back_to"]) == ("stop", 2, 0)
    assert alarm["evidence"]["wins"]["value"] == 0.0
    assert alarm["evidence"]["wins"]["n"] == decisions[1]["evidence"]["win_rate"]["n"]
    records = [tmp_path / "run" / f"round{r}" / "ppo" / "guard.json" for r in (1, 2, 3)]
    kinds = [[f["kind"] for f in json.loads(path.read_text())["findings"]] for path in records]
    assert [found.count("losing") for found in kinds] == [0, 1, 0]
    told = watched_rounds(tmp_path / "run", 3)
    assert told is not None
    [told_of] = [alert for alert in told.alerts if alert.kind == "losing"]
    assert told_of.where == "round 2"
    assert "wins" in told_of.evidence

    report = json.loads(records[1].read_text())
    records[1].write_text(json.dumps({**report, "findings": []}))  # as when a lost generation is made again
    verified(tmp_path / "run", verdicts, watch={"every": 1, "prompts": 8})
    assert [f["kind"] for f in json.loads(records[1].read_text())["findings"]] == ["losing"]


def test_an_alarm_of_people_needs_no_monitor_and_stands_in_the_report(tmp_path: Path) -> None:
    _, decisions = verified(tmp_path / "run", {"round1": "worse", "round2": "worse"})
    assert all(d["evidence"]["alarms"][0]["kind"] == "losing" for d in decisions)
    assert not list((tmp_path / "run").glob("round*/ppo/guard.json"))
    told = watched_rounds(tmp_path / "run", 2)
    assert told is not None
    assert [alert.where for alert in told.alerts] == ["round 1", "round 2"]


def test_which_answers_are_alarms() -> None:
    coin = {"value": 0.5, "low": 0.38, "high": 0.62, "n": 60}
    assert [f.kind for f in answered(coin, [0.0] * 12, 9, 0)] == ["labels", "losing"]
    assert [f.kind for f in answered({**coin, "low": 0.51}, [0.5] * 40, 9, 0)] == [], "ties are no loss"
    assert answered(None, [], 9, 0) == [], "nobody was asked"
    assert answered(None, [0.0] * 12, 9, None)[0].back_to is None


def test_a_loop_that_gets_no_better_stops_with_what_it_had(tmp_path: Path) -> None:
    loop, decisions = verified(tmp_path / "run", {"round1": "worse", "round2": "worse"})
    assert [d["act"] for d in decisions] == ["roll back", "stop"]
    assert loop.final == "sft"
    assert not (tmp_path / "run" / "round3").exists()
    before = digest(tmp_path / "run")
    verified(tmp_path / "run", {})
    assert digest(tmp_path / "run") == before, "resumed, it is over, and nobody is asked again"


def test_each_round_may_start_from_the_first_policy_and_go_on_with_the_reward_model(tmp_path: Path) -> None:
    changes = {"improve_from": "first", "refit": "continued", "past": 0.5}
    _, decisions = verified(tmp_path / "run", dict.fromkeys(("round1", "round2", "round3"), "better"), **changes)
    assert [d["act"] for d in decisions] == ["next"] * 3
    asked = read_lines_of(tmp_path / "run" / "round2" / "questions.jsonl")
    assert any(set(row["policies"]) == {"sft", "round1"} for row in asked)
    settings = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]
    assert (settings["improve_from"], settings["refit"]) == ("first", "continued")
    plain, _ = verified(tmp_path / "plain", dict.fromkeys(("round1", "round2", "round3"), "better"))
    weights = [load_file(tmp_path / name / "generations" / "round2" / "model.safetensors") for name in ("run", "plain")]
    assert any(not weights[0][name].equal(weights[1][name]) for name in weights[0])
    assert plain.final == "round3"


def test_the_store_knows_which_questions_are_an_honest_sample(tmp_path: Path) -> None:
    changes = {"verify": 0, "rounds": 2, "ask": "near-tie", "candidates": 3, "random_share": 0.25}
    loop, _ = verified(tmp_path / "run", {}, **changes)
    with Store(tmp_path / "run" / "feedback.db", read_only=True) as store:
        honest, asked = random_share(store), {query.id for query in store.queries("train")}
    assert honest < asked
    second = {row["query_id"]: row for row in json.loads((tmp_path / "run" / "round2" / "asked.json").read_text())["questions"]}
    assert sum(row["random"] for row in second.values()) == 2, "a quarter of eight"
    assert loop.final == "round2"
    assert set(second) <= asked
