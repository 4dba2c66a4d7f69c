"""The work of `ppo-details`: a policy, comparisons of its samples, a reward model, and one PPO after another.

SEED/policy/   SEED/comparisons.json   SEED/reward/   SEED/VARIANT/   a number for each, in the order of the settings
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from backflip.jobs import run_reward
from backflip.lab.ppo_details_settings import Settings
from backflip.lab.stages import columns, improved
from backflip.policies.language import LanguagePolicy
from backflip.policies.loading import load_policy
from backflip.records import Comparison
from backflip.rewards.learned import RewardModel
from backflip.runs import Run
from backflip.seeds import Seeds
from backflip.settings import Online
from backflip.train.online import improve
from backflip.worlds.reviews import Reviews


def reward_of(
    settings: Settings, folder: Path, policy: Path, comparisons: list[Comparison], seeds: Seeds, quiet: bool
) -> tuple[Path, dict[str, Any]]:  # fmt: skip
    """A reward model that starts from the policy; its folder and its figures on comparisons held out."""
    with Run.open(folder, kind="reward", settings=settings.reward, quiet=quiet) as run:
        if not run.finished:
            run.finish(run_reward(load_policy(policy), comparisons, settings.reward, settings.ppo.sampling, run, seeds))
    return folder / "model", json.loads((folder / "result.json").read_text())


def tuned(folder: Path, policy: Path, reward: Path, settings: Online, seeds: Seeds, quiet: bool) -> dict[str, list[float]]:
    """One PPO, gold watched beside the proxy; its figures step by step."""
    world = Reviews()

    def work(start: LanguagePolicy, run: Run) -> dict[str, float]:
        prompts = world.prompts(settings.steps * settings.batch_size, seeds.child("prompts"))
        return improve(start, prompts, RewardModel.load(reward), settings, run, seeds=seeds, gold=world.gold_reward)

    improved(folder, policy, settings, work, kind="ppo-details", quiet=quiet)
    names = {
        "step": "step", "gold": "objective/gold", "proxy": "objective/scores", "kl": "kl/seq_nats",
        "approxkl": "policy/approxkl_avg", "clipfrac": "policy/clipfrac_avg", "ratio": "val/ratio_max_error",
        "entropy": "objective/entropy", "unfinished": "rollout/unfinished_share", "beta": "objective/kl_coef",
    }  # fmt: skip
    return columns(folder, names)
