"""Every recipe is read by the command it is for, and says nothing that the command does not know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backflip.config import from_dict, leaves, read_yaml, to_dict
from backflip.errors import ConfigError
from backflip.job_settings import PPOJob, RLJob, RoundsJob, started_from
from backflip.rewards.learned import RewardModel
from backflip.settings import Online
from backflip.train.composition import check

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
JOBS = {
    "grpo_gsm8k": RLJob, "hh_tiny": RoundsJob, "own_model": RoundsJob, "ppo_hh": RLJob, "r1_zero_arithmetic": RLJob,
    "ziegler_style": PPOJob,
}  # fmt: skip


def test_every_recipe_has_its_command() -> None:
    assert {path.stem for path in RECIPES.iterdir()} == set(JOBS)


@pytest.mark.parametrize("name", sorted(JOBS))
def test_a_recipe_names_its_command_and_parses(name: str) -> None:
    path = RECIPES / f"{name}.yaml"
    command = {RoundsJob: "rounds", PPOJob: "ppo", RLJob: "rl"}[JOBS[name]]
    assert f"backflip {command} --config recipes/{name}.yaml" in path.read_text()
    values = read_yaml(path)
    kind = started_from(values["algorithm"]) if JOBS[name] is RLJob else JOBS[name]
    job = from_dict(kind, values)
    if isinstance(job, RLJob):
        check(job.train, RewardModel.__new__(RewardModel))
    said = to_dict(job)
    assert all(contains(said[key], value) for key, value in values.items())
    with pytest.raises(ConfigError, match="unknown setting"):
        from_dict(kind, {**values, "no_such_setting": 1})


def contains(made: object, given: object) -> bool:
    if isinstance(given, dict):
        return isinstance(made, dict) and all(contains(made[key], value) for key, value in given.items())
    return list(made) == given if isinstance(made, tuple | list) else made == given


def test_the_style_recipe_carries_the_published_details() -> None:
    job = from_dict(PPOJob, read_yaml(RECIPES / "ziegler_style.yaml"))
    published = Online(
        steps=1953, query_length=64, overlong="truncate", sentence_prompts=True, truncate_at=".", truncate_after=16,
        save_every=50, sample_every=50,
    )  # fmt: skip
    assert job.train == published
    assert job.train.steps * job.train.batch_size == pytest.approx(1_000_000, rel=1e-3)
    assert (job.train.sampling.max_new_tokens, job.train.sampling.temperature) == (24, 0.7)
    assert (job.train.optim.learning_rate, job.train.missing_penalty) == (1e-5, -1.0)


def test_the_style_recipe_says_every_setting_of_ppo() -> None:
    given = read_yaml(RECIPES / "ziegler_style.yaml")["train"]
    said = {".".join(leaf.path) for leaf in leaves(Online) if lookup(given, leaf.path)}
    assert said == {".".join(leaf.path) for leaf in leaves(Online)}


def lookup(values: Any, path: tuple[str, ...]) -> bool:
    for part in path:
        if not isinstance(values, dict) or part not in values:
            return False
        values = values[part]
    return True


def test_the_harmlessness_recipe_fits_itself() -> None:
    job = from_dict(RoundsJob, read_yaml(RECIPES / "hh_tiny.yaml"))
    assert job.comparisons == job.demonstrations == "../shared/data/hh_harmless.jsonl.gz"
    ppo = job.train.ppo
    assert ppo.query_length is not None
    assert ppo.query_length + ppo.sampling.max_new_tokens <= job.tiny.context
    assert ppo.query_length < job.finetune.max_length <= job.tiny.context
    assert job.train.rounds == 1
