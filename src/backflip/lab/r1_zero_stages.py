"""The work of `r1-zero`: a base model from a noisy corpus, reinforcement with a checked reward, and measuring.

    SEED/base/             pretraining            SEED/measured/NAME-STEP.json   figures of one checkpoint
    SEED/NAME/             one run of the online loop: grpo, control, control-biased
    SEED/compare/NAME/     the runs at equal samples: grpo, ppo, rloo, reinforce

Every stage is a run that can be resumed, or a file that is there whole or not at all.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from backflip.lab.arithmetic_base import pretrained_base
from backflip.lab.r1_zero_figures import judged, summarize
from backflip.lab.r1_zero_settings import Settings
from backflip.lab.stages import checkpoints, columns, improved, kept, peak_memory, seconds
from backflip.policies.language import LanguagePolicy
from backflip.policies.loading import load_policy
from backflip.rollout.local import generate_samples
from backflip.runs import Run
from backflip.runs.logs import read_lines
from backflip.seeds import Seeds
from backflip.settings import Online, Sampling
from backflip.train.online import improve
from backflip.worlds.arithmetic import Arithmetic, accuracy, reward
from backflip.worlds.arithmetic.notation import Task

__all__ = ["apart", "checkpoints", "curve", "measured", "peak_memory", "pretrained_base", "reinforce", "seconds"]

EVERY_CHECKPOINT = 1000
"""How many checkpoints of a run are kept: all, for they are measured afterwards."""


def reinforce(folder: Path, start: Path, settings: Online, task: Task, seeds: Seeds, quiet: bool) -> None:
    """Improve the model in `start` on problems that come once each; the result holds the peak memory of this process."""

    def work(policy: LanguagePolicy, run: Run) -> dict[str, float]:
        n = settings.steps * settings.batch_size // settings.num_generations
        prompts = Arithmetic().prompts(n, seeds.child("problems", task), task=task)
        return improve(policy, prompts, reward, settings, run, seeds=seeds, gold=accuracy)

    improved(folder, start, settings, work, kind="r1-zero", quiet=quiet, keep=EVERY_CHECKPOINT)


def apart(folder: Path, start: Path, settings: Online, task: Task, seeds: Seeds, quiet: bool) -> None:
    """`reinforce` in a process of its own, so that its peak memory is its own."""
    if (folder / "result.json").exists():
        return
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(reinforce, folder, start, settings, task, seeds, quiet).result()


def measured(
    path: Path, model: Path, task: Task, settings: Settings, seeds: Seeds, *, problems: int, problems_seed: str = "test"
) -> dict[str, Any]:
    """The figures of a model on test problems, and a few of its texts; measured once and kept in `path`.

    Every model of a seed meets the same problems.
    """

    def measure() -> dict[str, Any]:
        prompts = Arithmetic().prompts(problems, seeds.child(problems_seed), "test", task)
        sampling = Sampling(temperature=1.0, max_new_tokens=settings.grpo.sampling.max_new_tokens, slots=256)
        groups = generate_samples(
            load_policy(model), prompts, n=settings.tries, seeds=seeds.child("measure", path.stem), settings=sampling
        )
        figures = summarize(
            [
                (
                    p.columns["answer"],
                    [judged(p.plain, p.columns["answer"], s.text, finished=s.finished, length=s.n_tokens) for s in samples],
                )
                for p, samples in zip(prompts, groups, strict=True)
            ]
        )
        shown = [{"prompt": samples[0].prompt.plain, "texts": [s.text for s in samples[:3]]} for samples in groups[:6]]
        return figures | {"shown": shown}

    return kept(path, measure)


def curve(folder: Path) -> dict[str, list[float]]:
    """A run's figures step by step; the format's are what the sum of both rewards leaves."""
    names = {
        "step": "step", "pass@1": "objective/gold", "length": "rollout/length", "entropy": "objective/entropy",
        "kl": "kl/seq_nats", "dead groups": "group/zero_std_share", "unfinished": "rollout/unfinished_share",
    }  # fmt: skip
    rows = read_lines(folder / "metrics.jsonl")
    return columns(folder, names) | {"format": [(row["objective/scores"] - row["objective/gold"]) / 0.1 for row in rows]}
