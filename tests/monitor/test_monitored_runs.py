"""Real runs under a monitor: one whose reward is gamed ends as it was before, a kill changes nothing, jobs and rounds take it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.resume.compare import differences, snapshot
from tests.tiny_models import PROMPTS, TEXTS, small_ppo, tiny, vowels, weights

from backflip.cli.main import main
from backflip.errors import DataError, Interrupted
from backflip.feedback.labelers import Oracle
from backflip.monitor import Monitor
from backflip.policies.language import LanguagePolicy
from backflip.policies.loading import load_policy
from backflip.records import Prompt
from backflip.rewards.learned import RewardModel
from backflip.rounds import Loop
from backflip.rounds.watched import kept_apart, watching
from backflip.runs import Run
from backflip.seeds import Seeds
from backflip.settings import Online, Reward, Rounds, Sampling, Watch
from backflip.train.guarding import Watching
from backflip.train.online import improve

torch.set_num_threads(1)
FRESH = [Prompt(f"{p.plain} {word}") for p in PROMPTS for word in ("a", "dog", "sat", "ever")]
WATCH = Watch(every=2, prompts=len(FRESH), threshold=2.0)  # few prompts and few looks
STEEP: Online = small_ppo(steps=16, save_every=3, batch_size=16, learning_rate=0.02, lr_schedule="constant", kl_coef=0.0)


def meant(prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[float]:
    """What the judge thinks: vowels are a hack."""
    return [-v for v in vowels(prompts, completions)]


def run_of(folder: Path, judge: Any, monitor: Monitor | None = None) -> tuple[LanguagePolicy, Monitor]:
    """A run towards vowels under a monitor."""
    monitor, policy = monitor or Monitor(WATCH), tiny()
    watched = Watching(guard=monitor, prompts=FRESH, every=WATCH.every, judges={"judge": judge})
    with Run.open(folder, kind="ppo", settings=STEEP, quiet=True) as run:
        result = improve(policy, PROMPTS, vowels, STEEP, run, seeds=Seeds(0), watching=watched)
        run.finish(result | {"watch": watched.outcome()})
    return policy, monitor


def test_a_gamed_run_is_stopped_and_ends_as_its_best_policy(tmp_path: Path) -> None:
    policy, monitor = run_of(tmp_path / "run", meant)
    result = json.loads((tmp_path / "run" / "result.json").read_text())["watch"]
    assert result["stopped"] is True
    best = load_policy(tmp_path / "run" / "best" / f"step-{result['rolled_back_to']:08d}" / "policy")
    assert all(torch.equal(a, b) for a, b in zip(weights(best.model).values(), weights(policy.model).values(), strict=True))
    assert monitor.history[-1]["step"] < STEEP.steps
    told = json.loads((tmp_path / "run" / "guard.json").read_text())
    assert told["looks"] == monitor.history
    assert any(finding["kind"] == "falling" for finding in told["findings"])
    assert told["suspects"], "the proxy rose and the judge did not, so some were mined"


def test_a_run_whose_judge_agrees_goes_to_its_end(tmp_path: Path) -> None:
    _, monitor = run_of(tmp_path / "run", vowels)
    assert monitor.ruling.act == "go"
    assert monitor.history[-1]["step"] == STEEP.steps
    assert monitor.history[-1]["guard/quality"] > 1.0
    result = json.loads((tmp_path / "run" / "result.json").read_text())["watch"]
    assert (result["stopped"], result["rolled_back_to"]) == (False, None)


@pytest.mark.parametrize("cut", [0, 2, 6])
def test_a_monitored_run_that_is_cut_ends_bit_for_bit_the_same(tmp_path: Path, cut: int) -> None:
    class Cut(Monitor):
        def look(self, look: Any) -> Any:
            ruling = super().look(look)
            if look.step == cut:
                raise Interrupted("now")
            return ruling

    run_of(tmp_path / "whole", meant)
    with pytest.raises(Interrupted):
        run_of(tmp_path / "cut", meant, Cut(WATCH))
    run_of(tmp_path / "cut", meant)
    assert differences(snapshot(tmp_path / "whole"), snapshot(tmp_path / "cut")) == []


def test_prompts_are_kept_apart_and_never_trained_on() -> None:
    prompts = [Prompt("a"), Prompt("b"), Prompt("c"), Prompt("b"), Prompt("d")]
    trained, fresh = kept_apart(prompts, Watch(every=0))
    assert (trained, fresh) == (prompts, [])
    watch = dataclasses.replace(Watch(every=1), prompts=3)
    trained, fresh = kept_apart(prompts, watch)
    assert [p.plain for p in fresh] == ["b", "c", "d"]
    assert [p.plain for p in trained] == ["a"]
    with pytest.raises(DataError, match=r"leaves none to train"):
        kept_apart(prompts, dataclasses.replace(watch, prompts=4))
    assert watching(Watch(every=0), fresh) is None


def test_a_monitor_has_the_judges_given_and_those_of_the_settings(tmp_path: Path) -> None:
    RewardModel.from_policy(tiny(), seeds=Seeds(0)).save(tmp_path / "judge")
    found = watching(dataclasses.replace(WATCH, judges=(str(tmp_path / "judge"),)), FRESH, vowels)
    assert found is not None
    assert list(found.judges) == ["sentinel", str(tmp_path / "judge")]
    assert isinstance(found.guard, Monitor)


def test_the_ppo_command_is_watched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny().save(tmp_path / "policy")
    RewardModel.from_policy(tiny(), seeds=Seeds(0)).save(tmp_path / "reward")
    RewardModel.from_policy(tiny(1), seeds=Seeds(1)).save(tmp_path / "judge")
    rows = "".join(json.dumps({"prompt": f"{TEXTS[0][:n]}"}) + "\n" for n in range(4, 20))
    (tmp_path / "prompts.jsonl").write_text(rows)
    command = [
        "ppo", "--policy", str(tmp_path / "policy"), "--reward", str(tmp_path / "reward"), "--data",
        str(tmp_path / "prompts.jsonl"), "--output", str(tmp_path / "run"), "--train.steps", "2", "--train.batch-size", "4",
        "--train.sampling.max-new-tokens", "6", "--watch.every", "1", "--watch.prompts", "8", "--watch.judges",
        str(tmp_path / "judge"), "--watch.kl-stop", "1e-9", "--quiet",
    ]  # fmt: skip
    assert main(command) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    told = json.loads((tmp_path / "run" / "guard.json").read_text())
    assert [row["step"] for row in told["looks"]] == [0, 1, 2][: len(told["looks"])]
    assert result["watch"]["findings"] == told["findings"]
    assert (tmp_path / "run" / "model" / "config.json").exists()
    assert "guard/outlying_share" in told["looks"][0]
    capsys.readouterr()


def test_rounds_are_watched_with_their_sentinel(tmp_path: Path) -> None:
    ppo = small_ppo(steps=2, save_every=1)
    sampling = Sampling(temperature=1.0, max_new_tokens=6)
    settings = Rounds(
        rounds=2, comparisons=12, arena_prompts=2, sentinel=0.4, sampling=sampling, ppo=ppo,
        reward=Reward(batch_size=4, max_length=32, normalization_samples=4), watch=Watch(every=1, prompts=8),
    )  # fmt: skip
    prompts = [*PROMPTS, *FRESH]
    with Run.open(tmp_path / "run", kind="rounds", settings=settings, quiet=True) as run:
        loop = Loop(
            run=run, start=tiny, prompts=prompts, arena_prompts=PROMPTS[:2], settings=settings, seeds=Seeds(0),
            labeler=Oracle(lambda p, text: vowels([p], [text])[0], seeds=Seeds(0), temperature=0.5),
        )  # fmt: skip
        assert len(loop.fresh) == 8
        assert len(loop.prompts) == len(prompts) - 8
        loop.go()
        loop.close()
    told = json.loads((tmp_path / "run" / "round1" / "ppo" / "guard.json").read_text())
    assert [row["step"] for row in told["looks"]] == [0.0, 1.0, 2.0]
    assert "guard/quality" in told["looks"][0], "the sentinel is a judge"
    assert json.loads((tmp_path / "run" / "round1" / "ppo" / "result.json").read_text())["watch"]["stopped"] is False
    assert not (tmp_path / "run" / "round1" / "newest.json").exists(), "there was no reward model to be right"
    heard = json.loads((tmp_path / "run" / "round2" / "newest.json").read_text())
    assert 0 < heard["n"] <= 12
    assert 0 <= heard["low"] <= heard["value"] <= heard["high"] <= 1
    trained = (tmp_path / "run" / "round1" / "questions.jsonl").read_text()
    assert not any(json.dumps(prompt.plain) in trained for prompt in loop.fresh)
