"""`backflip reward`: comparisons in, a reward model and an honest report out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny_models import tiny

QUICK = ("--quiet", "--batch-size", 8, "--max-length", 64, "--normalization-samples", 8, "--max-new-tokens", 4)


@pytest.fixture
def store(kit: Any, tmp_path: Path) -> Path:
    """A feedback store of twenty answered questions."""
    from backflip.feedback.labelers import Oracle, answer_all
    from backflip.records import Prompt, Query
    from backflip.seeds import Seeds
    from backflip.store import Store

    path = tmp_path / "feedback.db"
    queries = [Query(Prompt(f"the film {i}"), (" was good", " was dull" * (1 + i % 3))) for i in range(20)]
    oracle = Oracle(lambda prompt, text: -len(text), seeds=Seeds(0), noise=0.0, temperature=0.0)
    with Store(path) as opened:
        answer_all(opened, oracle, queries)
    return path


def test_accuracy_stands_beside_the_two_bars(kit: Any, backflip: Any, tmp_path: Path) -> None:
    run = tmp_path / "r"
    learn = ("--holdout", 0.5, "--epochs", 4, "--learning-rate", 3e-3)
    said = backflip("reward", "--policy", kit.policy, "--data", kit.pairs, "--output", run, *learn, *QUICK)
    assert (said.code, said.err) == (0, "")
    result = json.loads((run / "result.json").read_text())
    lines = said.out.splitlines()
    assert lines[0] == f"accuracy on {result['n']} comparisons kept aside, ties left out:"
    rates = [re.findall(r"[\d.]+%", line) for line in lines[1:4]]
    assert rates[0] == [f"{result[name]:.1%}" for name in ("accuracy", "accuracy_low", "accuracy_high")]
    assert rates[1] == [f"{result[name]:.1%}" for name in ("shorter_accuracy", "shorter_low", "shorter_high")]
    assert rates[2] == ["50.0%"]
    assert result["accuracy"] == 1.0, "the chosen side says good, the rejected one bad"


def test_accuracy_is_told_by_how_far_a_policy_has_gone(kit: Any, backflip: Any, tmp_path: Path) -> None:
    run = tmp_path / "r"
    tiny(seed=3).save(tmp_path / "other")
    data = ("--data", kit.pairs, "--holdout", 0.5)
    assert backflip("reward", "--policy", kit.policy, "--improved", tmp_path / "other", "--output", run, *data, *QUICK).code == 0
    slices = json.loads((run / "quality.json").read_text())["slices"]["distance from the policy"]
    assert sum(each["n"] for each in slices) > 0
    assert all("nats" in each["name"] for each in slices)
    assert "distance from the policy" in (run / "report.html").read_text()
    again = ("--output", tmp_path / "again", *data, *QUICK)
    assert backflip("reward", "--policy", kit.policy, "--improved", tmp_path / "nowhere", *again).code == 2
    encoder = backflip("reward", "--policy", run / "model", "--improved", kit.policy, *again)
    assert not (tmp_path / "again").exists()
    assert encoder.code == 2
    assert "improved is what a language model became" in encoder.err


def test_the_model_is_an_ordinary_classifier(kit: Any, backflip: Any, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from backflip.rewards import RewardModel

    run = tmp_path / "r"
    assert backflip("reward", "--policy", kit.policy, "--data", kit.pairs, "--output", run, *QUICK).code == 0
    ours = RewardModel.load(run / "model", device="cpu")
    plain = AutoModelForSequenceClassification.from_pretrained(run / "model")
    words = AutoTokenizer.from_pretrained(run / "model")
    texts = ["the film was good" + words.eos_token, "a cat" + words.eos_token]
    inputs = words(texts, return_tensors="pt", padding=True, padding_side="right")
    theirs = plain(**inputs).logits.squeeze(-1) + ours.bias
    assert torch.allclose(theirs, torch.tensor(ours(["the film", "a"], [" was good", " cat"])), atol=1e-5)


@pytest.mark.parametrize("name", ["feedback.db", "renamed.bin"])
def test_a_feedback_store_is_known_by_its_content(name: str, store: Path, kit: Any, backflip: Any, tmp_path: Path) -> None:
    store.rename(tmp_path / name)
    data = ("--data", tmp_path / name, "--output", tmp_path / "r")
    assert backflip("reward", "--policy", kit.policy, *data, *QUICK).code == 0
    assert json.loads((tmp_path / "r" / "result.json").read_text())["comparisons"] == 20


def test_nothing_kept_aside_is_said(store: Path, kit: Any, backflip: Any, tmp_path: Path) -> None:
    data = ("--data", f"sqlite:///{store}", "--output", tmp_path / "r", "--holdout", 0, "--max-rows", 8)
    said = backflip("reward", "--policy", kit.policy, *data, *QUICK)
    assert (said.code, "on 8 the comparisons it learned from (nothing was kept aside)" in said.out) == (0, True)


def test_an_empty_store_and_a_missing_one(kit: Any, backflip: Any, tmp_path: Path) -> None:
    from backflip.store import Store

    Store(tmp_path / "empty.db").close()
    for name, sentence in (("empty.db", "there are no comparisons to learn from"), ("none.db", "there is no store at")):
        said = backflip("reward", "--policy", kit.policy, "--data", tmp_path / name, "--output", tmp_path / "r", *QUICK)
        assert (said.code, said.out) == (2, "")
        assert said.err.startswith(f"backflip: {sentence}")
        assert said.err.count("\n") == 1


def test_prompts_too_long_to_sample_from_still_teach(kit: Any, backflip: Any, tmp_path: Path) -> None:
    from backflip.jobs import read_reward_data
    from backflip.policies import load_policy
    from backflip.seeds import Seeds
    from backflip.settings import Reward, Sampling
    from backflip.train.reward_run import ruler

    rows = [{"prompt": "the film " * n, "chosen": " good", "rejected": " bad"} for n in (1, 100, 2, 200)]
    (tmp_path / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = ("--data", tmp_path / "long.jsonl", "--output", tmp_path / "r")
    assert backflip("reward", "--policy", kit.policy, *data, *QUICK).code == 0
    policy, found = load_policy(kit.policy), read_reward_data(str(tmp_path / "long.jsonl"))
    settings, sampling = Reward(normalization_samples=6), Sampling(max_new_tokens=4)
    drawn = ruler(policy, found, settings, sampling, Seeds(0))
    assert {s.prompt.text for s in drawn} == {rows[0]["prompt"], rows[2]["prompt"]}
    assert len(drawn) == 6
    assert ruler(policy, found[1:2], settings, sampling, Seeds(0)) == []


def test_stopped_and_started_again_ends_as_if_never_stopped(kit: Any, backflip: Any, stop_after: Any, tmp_path: Path) -> None:
    def command(name: str) -> Any:
        often = ("--output", tmp_path / name, "--save-every", 1, "--log-every", 1)
        return backflip("reward", "--policy", kit.policy, "--data", kit.pairs, *often, *QUICK)

    stop_after(1)
    stopped = command("b")
    assert (stopped.code, stopped.out) == (130, "")
    assert stopped.err == "backflip: stopped at step 1; run the same command again to go on\n"
    assert (command("a").code, command("b").code) == (0, 0)
    for file in ("model/model.safetensors", "model/config.json", "metrics.jsonl", "result.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file
