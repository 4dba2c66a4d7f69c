"""sft, reward, ppo and dpo, cut off anywhere: the resumed run ends bit for bit like the undisturbed one."""

from __future__ import annotations

import dataclasses
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backflip import jobs
from backflip.errors import ConfigError, Interrupted
from backflip.policies.language import LanguagePolicy
from backflip.rewards.learned import RewardModel
from backflip.runs import Run
from backflip.seeds import Seeds
from backflip.settings import Online
from backflip.train import reward_run
from backflip.train.online import improve
from backflip.train.state import fingerprint
from tests.resume import job, kill
from tests.resume.compare import differences, snapshot
from tests.resume.conftest import Undisturbed
from tests.resume.cutting import cut_off, die, dying, signalled

PPO_SETTINGS: Online = job.SETTINGS["ppo"]


@pytest.mark.parametrize(
    ("kind", "update"),
    [
        ("sft", 2),
        ("sft", 7),
        ("sft", 13),
        ("reward", 1),
        ("reward", 6),
        ("reward", 10),
        ("ppo", 9),
        ("ppo", 22),
        ("ppo", 31),
        ("grpo", 5),
        ("grpo", 12),
        ("dpo", 1),
        ("dpo", 6),
        ("dpo", 10),
    ],
)
def test_a_job_cut_off_at_any_update_ends_the_same(tmp_path: Path, undisturbed: Undisturbed, kind: str, update: int) -> None:
    with cut_off(update):
        job.perform(kind, tmp_path)
    job.perform(kind, tmp_path)
    assert differences(undisturbed(kind), snapshot(tmp_path)) == []


@pytest.mark.parametrize(
    ("changes", "lora"),
    [
        ({"critic": "reward"}, None),
        ({"critic": "none", "num_generations": 2, "advantage_estimator": "rloo", "whiten_rewards": False}, None),
        ({"kl_controller": "fixed", "num_generations": 2}, 2),
        (
            {"optim": dataclasses.replace(job.OPTIM, lr_schedule="cosine", weight_decay=0.1, adam_eps_convention="torch")},
            None,
        ),
    ],
    ids=["separate critic", "rloo", "adapter", "other optimizer"],
)
def test_other_kinds_of_ppo_end_the_same(
    tmp_path: Path, undisturbed: Undisturbed, changes: dict[str, Any], lora: int | None
) -> None:
    settings = dataclasses.replace(PPO_SETTINGS, steps=6, **changes)
    for update in (13, 9):  # in the fifth step, and then in the third one after the checkpoint of step 3
        with cut_off(update):
            job.perform("ppo", tmp_path, settings, lora=lora)
    job.perform("ppo", tmp_path, settings, lora=lora)
    assert differences(undisturbed("ppo", settings, lora), snapshot(tmp_path)) == []


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_an_adapter_is_trained_to_the_same_end(tmp_path: Path, undisturbed: Undisturbed, kind: str) -> None:
    with cut_off(8):
        job.perform(kind, tmp_path, lora=2)
    job.perform(kind, tmp_path, lora=2)
    assert differences(undisturbed(kind, None, 2), snapshot(tmp_path)) == []


@pytest.mark.parametrize("kind", ["reward", "ppo"])
def test_dropout_draws_the_same_masks_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    plain = job.policy

    def dropping(lora: int | None = None) -> LanguagePolicy:
        made = plain(lora)
        made.model.config.attention_dropout = 0.3
        for layer in made.model.model.layers:
            layer.self_attn.attention_dropout = 0.3
        return made

    monkeypatch.setattr(job, "policy", dropping)
    length = {"steps": 4} if kind == "ppo" else {"epochs": 1.2}
    for name, on in (("whole", True), ("without", False)):
        job.perform(kind, tmp_path / name, dataclasses.replace(job.SETTINGS[kind], dropout=on, **length))
    settings = dataclasses.replace(job.SETTINGS[kind], dropout=True, **length)
    with cut_off({"ppo": 14, "reward": 4}[kind]):
        job.perform(kind, tmp_path / "cut", settings)
    job.perform(kind, tmp_path / "cut", settings)
    whole = snapshot(tmp_path / "whole")
    assert differences(whole, snapshot(tmp_path / "cut")) == []
    assert "metrics.jsonl" in differences(whole, snapshot(tmp_path / "without")), "dropout was not at work above"


@pytest.mark.parametrize(
    ("kind", "settings", "updates_per_epoch"),
    [
        ("sft", dataclasses.replace(job.SETTINGS["sft"], holdout=0.0, save_every=1), 6),
        ("reward", dataclasses.replace(job.SETTINGS["reward"], holdout=0.0, save_every=1), 5),
        ("ppo", dataclasses.replace(PPO_SETTINGS, steps=5, save_every=1, ppo_epochs=1, num_minibatches=1), 3),
        ("dpo", dataclasses.replace(job.SETTINGS["dpo"], holdout=0.0, save_every=1), 5),
    ],
    ids=["sft", "reward", "ppo", "dpo"],
)
def test_the_end_of_an_epoch_is_no_special_place(
    tmp_path: Path, undisturbed: Undisturbed, kind: str, settings: Any, updates_per_epoch: int
) -> None:
    for updates in (updates_per_epoch - 1, 1, 1):  # dies one update before the boundary, on it, and one after it
        with cut_off(updates):
            job.perform(kind, tmp_path, settings)
    job.perform(kind, tmp_path, settings)
    assert differences(undisturbed(kind, settings), snapshot(tmp_path)) == []


@pytest.mark.parametrize("kind", ["sft", "reward", "ppo", "dpo"])
def test_a_damaged_newest_checkpoint_costs_its_steps_only(tmp_path: Path, undisturbed: Undisturbed, kind: str) -> None:
    with cut_off({"sft": 7, "reward": 7, "ppo": 28, "dpo": 7}[kind]):
        job.perform(kind, tmp_path)
    newest = max((tmp_path / "checkpoints").glob("step-*"))
    weights = next(newest.rglob("model.safetensors"))
    damaged = bytearray(weights.read_bytes())
    damaged[-5] ^= 1
    weights.write_bytes(damaged)
    job.perform(kind, tmp_path)
    assert differences(undisturbed(kind), snapshot(tmp_path)) == []


@pytest.mark.parametrize("kind", ["sft", "reward", "ppo", "dpo"])
@pytest.mark.parametrize("place", ["before the model is saved", "inside it", "before the result"])
def test_a_job_cut_off_after_its_last_update_ends_the_same(
    tmp_path: Path, undisturbed: Undisturbed, kind: str, place: str
) -> None:
    # What follows the last checkpoint (the reward model's second normalisation, the last figures) is done again.
    owner = reward_run if kind == "reward" else jobs
    once = owner.once

    def die_inside(folder: Path, make: Callable[[Path], None]) -> None:
        def save(new: Path) -> None:
            make(new)
            die()

        once(folder, save)

    ends = {"before the model is saved": die, "inside it": die_inside}
    with dying((Run, "finish", die) if place == "before the result" else (owner, "once", ends[place])):
        job.perform(kind, tmp_path)
    job.perform(kind, tmp_path)
    assert differences(undisturbed(kind), snapshot(tmp_path)) == []


@pytest.mark.parametrize("kind", ["sft", "reward", "ppo", "dpo"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_after_the_step_and_the_run_goes_on(
    tmp_path: Path, undisturbed: Undisturbed, kind: str, number: signal.Signals, code: int
) -> None:
    with signalled(6, number), pytest.raises(Interrupted) as stopped:
        job.perform(kind, tmp_path)
    assert stopped.value.exit_code == code
    saved = 2 if kind == "ppo" else 7  # the step in which the signal came is finished and saved
    assert f"stopped at step {saved};" in str(stopped.value)
    job.perform(kind, tmp_path)
    assert differences(undisturbed(kind), snapshot(tmp_path)) == []


def test_a_signal_in_the_last_step_lets_the_run_finish(tmp_path: Path, undisturbed: Undisturbed) -> None:
    with signalled(13, signal.SIGTERM):
        job.perform("sft", tmp_path)
    assert differences(undisturbed("sft"), snapshot(tmp_path)) == []


def test_every_step_has_one_line_after_many_cuts(tmp_path: Path, undisturbed: Undisturbed) -> None:
    for updates in (14, 14, 2):
        with cut_off(updates):
            job.perform("ppo", tmp_path)
    job.perform("ppo", tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, PPO_SETTINGS.steps + 1))
    assert [row["episode"] for row in rows] == [8 * row["step"] for row in rows]
    assert differences(undisturbed("ppo"), snapshot(tmp_path)) == []


def test_the_reference_and_the_reward_model_stay_as_they_were(tmp_path: Path) -> None:
    policy = job.policy()
    reward, reference = job.reward_model(policy), policy.frozen_copy()
    watched = {"policy": policy.model, "reference": reference.model, "reward": reward.model}
    before = {name: fingerprint(model.named_parameters()) for name, model in watched.items()}
    settings = dataclasses.replace(PPO_SETTINGS, steps=2, critic="reward")
    with Run.open(tmp_path, kind="ppo", settings=settings, quiet=True) as run:
        improve(policy, job.PROMPTS, reward, settings, run, seeds=job.SEEDS, reference=reference)
    after = {name: fingerprint(model.named_parameters()) for name, model in watched.items()}
    assert {name for name in watched if after[name] != before[name]} == {"policy"}


def test_other_settings_are_refused_with_the_difference(tmp_path: Path) -> None:
    with cut_off(13):
        job.perform("ppo", tmp_path)
    other = dataclasses.replace(PPO_SETTINGS, kl_target=0.6, optim=dataclasses.replace(job.OPTIM, learning_rate=1e-3))
    with pytest.raises(ConfigError, match=r"kl_target.*0\.5.*0\.6.*learning_rate.*0\.003.*0\.001"):
        job.perform("ppo", tmp_path, other)


@pytest.mark.parametrize(
    ("kind", "lora", "name", "other", "said"),
    [
        ("ppo", None, "policy", lambda lora=None: _nudged(job.policy(lora)), "initial policy"),
        ("ppo", 2, "policy", lambda lora=None: _nudged(job.policy(lora)), "frozen weights"),
        ("sft", 2, "policy", lambda lora=None: _nudged(job.policy(lora)), "frozen weights"),
        ("ppo", None, "reward_model", lambda start: _biased(job.reward_model(start)), "reward model"),
        ("ppo", None, "PROMPTS", job.PROMPTS[1:], "prompts"),
        ("sft", None, "SEEDS", Seeds(8), "seed"),
        ("dpo", None, "policy", lambda lora=None: _nudged(job.policy(lora)), "initial policy"),
        ("dpo", 2, "policy", lambda lora=None: _nudged(job.policy(lora)), "frozen weights"),
        ("dpo", None, "comparisons", lambda: [c.swap() for c in job.comparisons()], "comparisons"),
        ("reward", None, "comparisons", lambda: [c.swap() for c in job.comparisons()], "comparisons"),
    ],
)
def test_what_a_run_was_begun_with_must_be_there_again(
    tmp_path: Path,
    undisturbed: Undisturbed,
    kind: str,
    lora: int | None,
    name: str,
    other: Any,
    said: str,
) -> None:
    with cut_off({"ppo": 13}.get(kind, 5)):
        job.perform(kind, tmp_path, lora=lora)
    changed = other
    if callable(other):  # made before the name is patched: it calls what the name stands for
        made = other(*([job.policy()] if name == "reward_model" else [lora] if name == "policy" else []))
        changed = lambda *_: made  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, name, changed)
        with pytest.raises(ConfigError, match=rf"cannot go on.*{said}"):
            job.perform(kind, tmp_path, lora=lora)
    job.perform(kind, tmp_path, lora=lora)
    assert differences(undisturbed(kind, None, lora), snapshot(tmp_path)) == [], "a refusal must not harm the run"


def _nudged(policy: LanguagePolicy) -> LanguagePolicy:
    """The policy with the lowest bit of one weight changed."""
    weight = next(p for n, p in policy.model.named_parameters() if "embed_tokens" in n and "lora" not in n)
    weight.data.view(-1)[0].mul_(1 + 2**-23)
    return policy


def _biased(reward: RewardModel) -> RewardModel:
    reward.bias += 1e-9
    return reward


def test_a_killed_process_is_replaced_by_another(tmp_path: Path, undisturbed: Undisturbed) -> None:
    trial = kill.trial("ppo", tmp_path, undisturbed("ppo", job.longer("ppo")), after=1.0, saving=True)
    assert trial.death.saving
    assert trial.different == []
