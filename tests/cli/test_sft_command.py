"""`backflip sft`: from data to a model folder, once, and on from where it stopped."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

QUICK = ("--quiet", "--batch-size", 8, "--save-every", 1, "--log-every", 1)


def state(folder: Path) -> dict[str, bytes]:
    """Every file under a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_folder_learns_demonstrations_and_is_an_ordinary_model(kit: Any, backflip: Any, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from backflip.policies import load_policy

    run = tmp_path / "run"
    said = backflip("sft", "--policy", kit.policy, "--data", kit.demos, "--output", run, "--max-steps", 3, *QUICK)
    assert (said.code, said.err) == (0, "")
    assert f"model:  {run}/model" in said.out
    result = json.loads((run / "result.json").read_text())
    assert (result["steps"], result["examples"]) == (3, 19)
    assert f"loss on rows kept aside: {result['eval_loss']:.4f}" in said.out
    assert "3 steps, finished" in (run / "report.html").read_text()

    ids = torch.tensor([[40, 50, 60]])
    plain = AutoModelForCausalLM.from_pretrained(run / "model")
    ours, before = load_policy(run / "model", device="cpu"), load_policy(kit.policy, device="cpu")
    assert ours.name == "run"
    assert torch.equal(plain(ids).logits, ours.model(ids).logits)
    assert not torch.allclose(plain(ids).logits, before.model(ids).logits)
    assert AutoTokenizer.from_pretrained(run / "model").get_vocab() == before.tokenizer.get_vocab()


def test_a_finished_run_says_so_and_prints_its_result(kit: Any, backflip: Any, tmp_path: Path) -> None:
    data = tmp_path / "demos.jsonl"
    data.write_bytes(Path(kit.demos).read_bytes())
    command = ("sft", "--policy", kit.policy, "--data", data, "--output", tmp_path / "run", "--max-steps", 1)
    first = backflip(*command, *QUICK)
    data.unlink()  # a finished run needs nothing but itself
    before = state(tmp_path / "run")
    again = backflip(*command, *QUICK[1:])
    assert (again.code, again.out) == (0, first.out)
    assert again.err.startswith("run: this run is finished")
    assert state(tmp_path / "run") == before
    (tmp_path / "run" / "report.html").unlink()
    assert backflip(*command, *QUICK).code == 0
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize("data", ["raw", "texts"])
def test_raw_text_pretrains_a_tiny_model_from_nothing(data: str, kit: Any, backflip: Any, tmp_path: Path) -> None:
    from backflip.policies import load_policy

    file = getattr(kit, data)
    said = backflip("sft", "--policy", "tiny", "--data", file, "--output", tmp_path / "r", "--learning-rate", 3e-3, *QUICK)
    result = json.loads((tmp_path / "r" / "result.json").read_text())
    policy = load_policy(tmp_path / "r" / "model")
    assert (said.code, result["examples"]) == (0, 38)
    assert result["eval_loss"] < math.log(len(policy.tokenizer)) - 1
    assert len(policy.encode_completion("the film was good", eos=False)) <= 4, "the tokenizer was trained on the data"


def test_dialogues_are_demonstrations_too(kit: Any, backflip: Any, tmp_path: Path) -> None:
    said = backflip("sft", "--policy", kit.policy, "--data", kit.dialogues, "--output", tmp_path / "r", *QUICK)
    assert said.code == 0
    assert "on 8 rows" in said.out


def test_max_rows_and_lora(kit: Any, backflip: Any, tmp_path: Path) -> None:
    from backflip.policies import load_policy

    lora = ("--lora", 2, "--max-rows", 10, "--learning-rate", 0.01, "--holdout", 0)
    said = backflip("sft", "--policy", kit.policy, "--data", kit.demos, "--output", tmp_path / "r", *lora, *QUICK)
    assert (said.code, said.out.splitlines()[0]) == (0, "2 updates on 10 rows")
    assert "kept aside" not in said.out
    assert not (tmp_path / "r" / "model" / "adapter_config.json").exists(), "the adapter is merged into the weights"
    before, after = load_policy(kit.policy), load_policy(tmp_path / "r" / "model")
    changed = [n for n, p in after.parameters() if not torch.equal(p, before.model.state_dict()[n])]
    assert changed
    assert all("embed" not in name and "norm" not in name for name in changed), "LoRA moves linear layers only"


def test_stopped_and_started_again_ends_as_if_never_stopped(kit: Any, backflip: Any, stop_after: Any, tmp_path: Path) -> None:
    def command(name: str) -> Any:
        there = ("--output", tmp_path / name, "--max-steps", 3)
        return backflip("sft", "--policy", kit.policy, "--data", kit.demos, *there, *QUICK)

    stop_after(1)
    stopped = command("b")
    assert (stopped.code, stopped.out) == (130, "")
    assert stopped.err == "backflip: stopped at step 1; run the same command again to go on\n"
    assert (command("a").code, command("b").code) == (0, 0)
    a, b = state(tmp_path / "a"), state(tmp_path / "b")
    same = ["model/model.safetensors", "metrics.jsonl", "result.json", "run.json"]
    assert [a[name] == b[name] for name in same] == [True] * 4


def test_trackers_repeat_the_metrics(kit: Any, backflip: Any, tmp_path: Path) -> None:
    command = ("sft", "--policy", kit.policy, "--data", kit.demos, "--max-steps", 1, *QUICK)
    assert backflip(*command, "--output", tmp_path / "a", "--tracker", "tensorboard").code == 0
    assert list((tmp_path / "a" / "tensorboard").iterdir())
    said = backflip(*command, "--output", tmp_path / "b", "--tracker", "tensorbord")
    assert (said.code, said.err) == (2, "backflip: unknown tracker 'tensorbord'; did you mean 'tensorboard'?\n")


def test_settings_of_a_run_start_another_like_it(kit: Any, backflip: Any, tmp_path: Path) -> None:
    command = ("sft", "--policy", kit.policy, "--data", kit.demos, "--max-steps", 1, *QUICK)
    assert backflip(*command, "--output", tmp_path / "a").code == 0
    yaml = tmp_path / "a" / "settings.yaml"
    assert backflip("sft", "--config", yaml, "--output", tmp_path / "b", "--quiet").code == 0
    (tmp_path / "a").rename(tmp_path / "moved")
    assert backflip("sft", "--config", tmp_path / "b" / "settings.yaml", "--output", tmp_path / "moved").code == 0
    results = [(tmp_path / name / "result.json").read_text() for name in ("moved", "b")]
    assert results[0] == results[1]
