"""`backflip rounds` as a person meets it: people answer in between, mistakes are one sentence, results are shown."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from tests.tiny_models import tiny
from tests.tiny_rounds import loop_job, recorded_job

from backflip.cli.main import main
from backflip.config import to_yaml
from backflip.records import Prompt, Query
from backflip.rewards.learned import RewardModel
from backflip.rollout import local
from backflip.rounds.loop import WAITING
from backflip.seeds import Seeds
from backflip.store import Store


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with a policy, prompts, and no terminal in sight."""
    tiny().save(tmp_path / "policy")
    rows = [json.dumps({"prompt": f"the film number {i} was"}) for i in range(12)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(rows))
    return tmp_path


def command(folder: Path, *flags: str, **changes: object) -> list[str]:
    job = loop_job(folder / "policy", folder / "prompts.jsonl", folder / "run", **changes)
    (folder / "job.yaml").write_text(to_yaml(job))
    return ["rounds", "--config", str(folder / "job.yaml"), "--quiet", *flags]


def answer(folder: Path, monkeypatch: pytest.MonkeyPatch, lines: str) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    return main(["label", str(folder / "run" / "feedback.db"), "--annotator", "ann"])


def test_people_answer_in_between(models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stops = 0
    while (code := main(command(models))) == WAITING:
        stops += 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "wait for an answer (" in said
        assert "; run 'backflip studio" in said
        with Store(models / "run" / "feedback.db", read_only=True) as store:
            waiting = len([q for q in store.unanswered() if q.purpose in ("train", "arena")])
        assert f"{waiting} of " in said
        if stops == 1:  # one answer too few, and the loop waits for exactly that one, without sampling anything anew
            assert answer(models, monkeypatch, "l\n" * (waiting - 1)) == 0
            with monkeypatch.context() as still:
                still.setattr(local, "generate", no_sampling)
                capsys.readouterr()
                assert main(command(models)) == WAITING
            assert capsys.readouterr().err.startswith("backflip: 1 of ")
            assert answer(models, monkeypatch, "r\n") == 0
        else:
            assert answer(models, monkeypatch, "l\nr\nt\ns\n" * waiting) == 0
        capsys.readouterr()
    assert code == 0
    assert stops == 3  # two rounds of questions, and the arena
    shown = capsys.readouterr().out
    assert "round2" in shown
    assert "gold" not in shown
    result = json.loads((models / "run" / "result.json").read_text())
    assert result["labeler"] == "human"
    assert result["reward_model"]["measured_on"] == "questions that its training left out"
    with Store(models / "run" / "feedback.db", read_only=True) as store:
        assert result["comparisons"] == len(store.comparisons())
        assert {v.annotator for v in store.verdicts()} <= {"ann", "same-text"}
    assert main(command(models)) == 0
    assert "round2" in capsys.readouterr().out


def no_sampling(*args: object, **kwargs: object) -> None:
    raise AssertionError("the questions were sampled already")


def test_nobody_is_shown_two_identical_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    same = Query(Prompt("p"), ("alike", "alike"), policies=("a", "b"), purpose="arena-same-text")
    (tmp_path / "run").mkdir()
    with Store(tmp_path / "run" / "feedback.db") as store:
        store.add_queries([same, Query(Prompt("p"), ("one", "two"))])
    assert answer(tmp_path, monkeypatch, "l\nl\n") == 0
    out = capsys.readouterr().out
    assert "alike" not in out
    assert "1 of 1 answered by ann" in out
    with Store(tmp_path / "run" / "feedback.db", read_only=True) as store:
        assert [v.query_id for v in store.verdicts()] == [Query(Prompt("p"), ("one", "two")).id]


def test_a_reward_model_may_answer(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (models / "annotator").mkdir()
    RewardModel.from_policy(tiny(7), seeds=Seeds(7), max_length=64).save(models / "annotator")
    flags = ["--labeler", str(models / "annotator"), "--train.rounds", "1"]
    assert main(command(models, *flags)) == 0
    shown = capsys.readouterr().out
    assert "gold" in shown
    assert "blind comparisons" in shown
    assert (models / "run" / "report.html").exists()


def test_recorded_comparisons_need_one_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = []
    for i in range(20):
        asked = f"\n\nHuman: Question {i}?\n\nAssistant:"
        rows.append(json.dumps({"chosen": f"{asked} No, sorry.", "rejected": f"{asked} Yes, and here is how."}))
    (tmp_path / "hh.jsonl").write_text("\n".join(rows))
    (tmp_path / "job.yaml").write_text(to_yaml(recorded_job(tmp_path / "hh.jsonl", tmp_path / "run")))
    assert main(["rounds", "--config", str(tmp_path / "job.yaml"), "--quiet"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "sentinel" in shown
    assert "a coin on 50 %, the shorter reply on 100.0%" in shown


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--data", "no/such/prompts.jsonl"], "no file no/such/prompts.jsonl"),
        (["--policy", "./no-such-model"], "there is no model folder no-such-model"),
        (["--labeler", "./no-such-model"], "there is no model folder no-such-model"),
        (["--labeler", "recorded"], "give --comparisons"),
        (["--arena-prompts", "12"], "12 different prompts and 12 are kept"),
        (["--arena-prompst", "12"], "did you mean '--arena-prompts'?"),
        (["--train.ppo.query-length", "3", "--overlong", "refuse"], "at most 3 fit"),
    ],
)
def test_a_mistake_is_one_sentence(flags: list[str], said: str, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(models, *flags)) == 2
    err = capsys.readouterr().err
    assert err.startswith("backflip: ")
    assert said in err
    assert err.count("\n") == 1
    assert not (models / "run" / "result.json").exists()


def test_the_command_can_be_put_right_after_a_mistake(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(models, "--policy", "./no-such-model")) == 2
    assert main(command(models)) == WAITING
    assert "questions wait" in capsys.readouterr().err
