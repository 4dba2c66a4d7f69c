"""The work of `exploration`: five runs from one base model, and many tries of each of the six models.

    SEED/base/              pretraining, unless the base model is borrowed
    SEED/NAME/              one run of the online loop
    SEED/measured/NAME.json what a model does on the test problems

Every stage is a run that can be resumed, or a file that is there whole or not at all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backflip.lab.exploration_figures import counted
from backflip.lab.exploration_settings import Settings
from backflip.lab.stages import checkpoints, columns, improved, kept
from backflip.policies.language import LanguagePolicy
from backflip.policies.loading import load_policy
from backflip.rollout.local import generate_samples
from backflip.runs import Run
from backflip.seeds import Seeds
from backflip.settings import Online, Sampling
from backflip.train.online import improve
from backflip.worlds.arithmetic import Arithmetic, accuracy, reward

CURVES = {
    "step": "step", "pass@1": "objective/gold", "entropy": "objective/entropy", "length": "rollout/length", "kl": "kl/seq_nats",
    "clipped": "policy/clipfrac_avg", "dead groups": "group/zero_std_share",
}  # fmt: skip


def reinforce(folder: Path, start: Path, online: Online, seeds: Seeds, quiet: bool) -> Path:
    """Improve the model in `start` on sums that come once each, the same for every run of a seed."""

    def work(policy: LanguagePolicy, run: Run) -> dict[str, float]:
        n = online.steps * online.batch_size // online.num_generations
        prompts = Arithmetic().prompts(n, seeds.child("problems"))
        return improve(policy, prompts, reward, online, run, seeds=seeds, gold=accuracy)

    return improved(folder, start, online, work, kind="exploration", quiet=quiet, keep=online.steps)


def measured(path: Path, model: Path, settings: Settings, seeds: Seeds) -> dict[str, Any]:
    """What a model does on the test problems, at temperature 1; measured once. Every model of a seed meets the same ones."""

    def measure() -> dict[str, Any]:
        prompts = Arithmetic().prompts(settings.problems, seeds.child("test"), "test")
        sampling = Sampling(temperature=1.0, max_new_tokens=settings.grpo.sampling.max_new_tokens, slots=256)
        groups = generate_samples(
            load_policy(model), prompts, n=settings.tries, seeds=seeds.child("measure", path.stem), settings=sampling
        )
        return counted(groups)

    return kept(path, measure)


def between(folder: Path, online: Online) -> dict[int, Path]:
    """The models that a run left on its way, by the number of steps before them."""
    return {step: path for step, path in checkpoints(folder).items() if step < online.steps}


def curve(folder: Path) -> dict[str, list[float]]:
    """A run's figures step by step; its entropy is that of what it samples from, at its own temperature."""
    return columns(folder, CURVES)
