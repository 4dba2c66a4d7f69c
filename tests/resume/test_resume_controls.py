"""Negative controls: whatever part of the saved state is dropped, the comparison notices.

A test of equality proves little while nobody has seen it fail. Each case cuts a run off, takes one thing out of its
newest checkpoint as if it had never been saved, and requires that the resumed run then ends otherwise.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from backflip.policies.language import LanguagePolicy
from backflip.rewards.learned import RewardModel
from backflip.runs import checkpoints
from backflip.train.critic import SharedCritic
from tests.resume import job
from tests.resume.compare import differences, snapshot
from tests.resume.conftest import Undisturbed
from tests.resume.cutting import cut_off

Drop = Callable[[Path], None]


def tensors(file: str, prefix: str, change: Callable[[Tensor], Tensor] = torch.zeros_like) -> Drop:
    """Change the tensors of a safetensors file whose names start with `prefix`."""

    def drop(folder: Path) -> None:
        path = folder / file
        saved = load_file(path)
        assert any(name.startswith(prefix) and change(x).ne(x).any() for name, x in saved.items())
        save_file({n: change(x) if n.startswith(prefix) else x for n, x in saved.items()}, path, {"format": "pt"})

    return drop


def value(file: str, *keys: str, becomes: Any = None) -> Drop:
    """Set a value inside a JSON file, or without `becomes` delete it."""

    def drop(folder: Path) -> None:
        path = folder / file
        whole = place = json.loads(path.read_text())
        for key in keys[:-1]:
            place = place[key]
        assert place[keys[-1]] != becomes
        if becomes is None:
            del place[keys[-1]]
        else:
            place[keys[-1]] = becomes
        path.write_text(json.dumps(whole))

    return drop


def nothing(folder: Path) -> None:
    """Write the checkpoint anew as it is: the control of the controls."""
    assert (folder / "state.json").is_file()


def without(folder: Path, drop: Drop) -> None:
    """Apply `drop` to the newest checkpoint of a run and seal it again, so that it verifies."""
    newest = max((folder / "checkpoints").glob("step-*"))
    drop(newest)
    (newest / checkpoints.MANIFEST).unlink()
    checkpoints._seal(newest, int(newest.name.removeprefix("step-")))
    assert checkpoints.verify(newest) == ""


SEPARATE = dataclasses.replace(job.SETTINGS["ppo"], steps=6, critic="reward")
NOT_SCALED_AFTER = dataclasses.replace(job.SETTINGS["reward"], normalize_after=False)
CASES: dict[str, tuple[str, Any, int | None, Drop]] = {
    "sft: m": ("sft", None, None, tensors("optimizer.safetensors", "m.")),
    "sft: v": ("sft", None, None, tensors("optimizer.safetensors", "v.")),
    "sft: t": ("sft", None, None, tensors("optimizer.safetensors", "t")),
    "sft: step": ("sft", None, None, value("state.json", "step", becomes=5)),
    "sft: adapter": ("sft", None, 2, tensors("policy/adapter_model.safetensors", "base")),
    "reward: m": ("reward", None, None, tensors("optimizer.safetensors", "m.")),
    "reward: v": ("reward", None, None, tensors("optimizer.safetensors", "v.")),
    "reward: t": ("reward", None, None, tensors("optimizer.safetensors", "t")),
    "reward: body": ("reward", None, None, tensors("reward/model.safetensors", "model.layers.0")),
    "reward: head": ("reward", None, None, tensors("reward/model.safetensors", "score")),
    "reward: gain": ("reward", None, None, value("reward/config.json", "backflip", "gain", becomes=1.0)),
    "reward: bias": ("reward", NOT_SCALED_AFTER, None, value("reward/config.json", "backflip", "bias", becomes=0.0)),
    "dpo: m": ("dpo", None, None, tensors("optimizer.safetensors", "m.")),
    "dpo: v": ("dpo", None, None, tensors("optimizer.safetensors", "v.")),
    "dpo: t": ("dpo", None, None, tensors("optimizer.safetensors", "t")),
    "dpo: step": ("dpo", None, None, value("state.json", "step", becomes=5)),
    "dpo: adapter": ("dpo", None, 2, tensors("policy/adapter_model.safetensors", "base")),
    "ppo: m": ("ppo", None, None, tensors("optimizer.safetensors", "m.")),
    "ppo: v": ("ppo", None, None, tensors("optimizer.safetensors", "v.")),
    "ppo: t": ("ppo", None, None, tensors("optimizer.safetensors", "t")),
    "ppo: value head": ("ppo", None, None, tensors("critic/value_head.safetensors", "value_head")),
    "ppo: kl_coef": ("ppo", None, None, value("state.json", "kl_coef")),
    "ppo: critic's body": ("ppo", SEPARATE, None, tensors("critic/model.safetensors", "model.layers.0")),
    "ppo: critic's gain": ("ppo", SEPARATE, None, value("critic/config.json", "backflip", "gain", becomes=1.0)),
    "ppo: critic's bias": ("ppo", SEPARATE, None, value("critic/config.json", "backflip", "bias", becomes=0.0)),
}
CUT = {"sft": 11, "reward": 8, "ppo": 18, "dpo": 8}


@pytest.mark.parametrize("name", CASES)
def test_a_dropped_part_is_noticed(tmp_path: Path, undisturbed: Undisturbed, name: str) -> None:
    kind, settings, lora, drop = CASES[name]
    with cut_off(CUT[kind]):
        job.perform(kind, tmp_path, settings, lora=lora)
    without(tmp_path, drop)
    job.perform(kind, tmp_path, settings, lora=lora)
    assert differences(undisturbed(kind, settings, lora), snapshot(tmp_path)) != []


@pytest.mark.parametrize("kind", ["sft", "reward", "ppo", "dpo"])
def test_a_checkpoint_sealed_again_as_it_was_is_as_good(tmp_path: Path, undisturbed: Undisturbed, kind: str) -> None:
    with cut_off(CUT[kind]):
        job.perform(kind, tmp_path)
    without(tmp_path, nothing)
    job.perform(kind, tmp_path)
    assert differences(undisturbed(kind), snapshot(tmp_path)) == []


@pytest.mark.parametrize(
    ("kind", "model"),
    [("sft", LanguagePolicy), ("reward", RewardModel), ("ppo", LanguagePolicy), ("ppo", SharedCritic), ("dpo", LanguagePolicy)],
)
def test_weights_that_are_not_taken_up_are_noticed(
    tmp_path: Path, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch, kind: str, model: type
) -> None:
    with cut_off(CUT[kind]):
        job.perform(kind, tmp_path)
    monkeypatch.setattr(model, "restore", lambda self, folder: None)
    job.perform(kind, tmp_path)
    assert differences(undisturbed(kind), snapshot(tmp_path)) != []


def test_the_last_figures_are_part_of_the_state(
    tmp_path: Path, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A run that was cut off between its last checkpoint and its result has no step left that would measure them again.
    job.perform("ppo", tmp_path)
    (tmp_path / "result.json").unlink()
    without(tmp_path, value("state.json", "metrics"))
    job.perform("ppo", tmp_path)
    changed = differences(undisturbed("ppo"), snapshot(tmp_path))
    assert {"result.json: objective/kl", "result.json: objective/scores"} <= set(changed)
