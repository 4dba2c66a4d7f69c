"""`backflip ppo`: a policy and a reward model in, a better policy out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

QUICK = ("--quiet", "--batch-size", 8, "--ppo-epochs", 1, "--max-new-tokens", 5, "--save-every", 1, "--steps", 2)


def test_the_policy_moves_and_the_figures_are_told(kit: Any, backflip: Any, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    from backflip.policies import load_policy

    run = tmp_path / "better"
    given = ("--policy", kit.policy, "--reward", kit.reward, "--data", kit.prompts, "--output", run)
    said = backflip("ppo", *given, "--learning-rate", 1e-3, *QUICK)
    assert (said.code, said.err) == (0, "")
    result = json.loads((run / "result.json").read_text())
    settings = json.loads((run / "run.json").read_text())["settings"]["train"]
    assert (settings["optim"]["learning_rate"], settings["optim"]["max_grad_norm"]) == (1e-3, None)
    assert settings["sampling"]["ignore_eos"], "naming one setting leaves its neighbours at PPO's defaults"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert result["objective/scores"] == rows[-1]["objective/scores"]
    assert f"reward                   {result['objective/scores']:+.3f}" in said.out
    assert f"{result['kl/seq_nats']:.2f} nats per sequence" in said.out
    assert (run / "report.html").exists()

    before, after = load_policy(kit.policy, device="cpu"), load_policy(run / "model", device="cpu")
    ids = torch.tensor([[40, 50, 60]])
    assert after.name == "better"
    assert not torch.equal(before.model(ids).logits, after.model(ids).logits)
    plain = AutoModelForCausalLM.from_pretrained(run / "model")
    assert torch.equal(plain(ids).logits, after.model(ids).logits)
    again = backflip("ppo", *given, "--learning-rate", 1e-3, *QUICK)
    assert (again.code, again.out) == (0, said.out)


def test_dialogues_serve_as_prompts_and_lora_is_merged(kit: Any, backflip: Any, tmp_path: Path) -> None:
    given = ("--policy", kit.policy, "--reward", kit.reward, "--data", kit.dialogues, "--output", tmp_path / "r")
    assert backflip("ppo", *given, "--lora", 2, *QUICK).code == 0
    assert not (tmp_path / "r" / "model" / "adapter_config.json").exists()
    rows = [json.loads(line) for line in (tmp_path / "r" / "samples.jsonl").read_text().splitlines()]
    assert rows
    assert all("Hi " in row["prompt"] and "chosen" not in row["prompt"] for row in rows)


def test_the_critic_may_start_from_the_reward_model(kit: Any, backflip: Any, tmp_path: Path) -> None:
    given = ("--policy", kit.policy, "--reward", kit.reward, "--data", kit.prompts, "--output", tmp_path / "r")
    assert backflip("ppo", *given, "--critic", "reward", *QUICK).code == 0
    checkpoint = tmp_path / "r" / "checkpoints" / "step-00000002"
    assert (checkpoint / "critic" / "config.json").exists()


def test_stopped_and_started_again_ends_as_if_never_stopped(kit: Any, backflip: Any, stop_after: Any, tmp_path: Path) -> None:
    def command(name: str) -> Any:
        given = ("--policy", kit.policy, "--reward", kit.reward, "--data", kit.prompts, "--output", tmp_path / name)
        return backflip("ppo", *given, "--learning-rate", 1e-3, *QUICK)

    stop_after(1)
    stopped = command("b")
    assert (stopped.code, stopped.out) == (130, "")
    assert stopped.err == "backflip: stopped at step 1; run the same command again to go on\n"
    assert (command("a").code, command("b").code) == (0, 0)
    for file in ("model/model.safetensors", "metrics.jsonl", "samples.jsonl", "result.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_mended_settings_go_where_the_refused_ones_were(kit: Any, backflip: Any, tmp_path: Path) -> None:
    given = ("--policy", kit.policy, "--reward", kit.reward, "--data", kit.prompts, "--output", tmp_path / "r")
    assert backflip("ppo", *given, *QUICK, "--top-p", 0.9).code == 2
    assert backflip("ppo", *given, *QUICK).code == 0
    said = backflip("ppo", *given, *QUICK, "--kl-coef", 0.3)
    assert said.code == 2
    assert "other settings (train.kl_coef: 0.15 → 0.3)" in said.err
