"""The work of `r1`: base models, a cold start, reinforcement, imitation of samples, and measuring.

    SEED/NAME/                 one stage, a run of its own: base, cold, grpo, language, rejection, second, small, small-rl,
                               small-sft, small-wide
    SEED/samples/NAME.jsonl    right completions that a stage imitates
    SEED/measured/NAME.json    figures of the model that a stage left

Every stage is a run that can be resumed, or a file that is there whole or not at all.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from backflip.feedback.readers import read_demonstrations
from backflip.lab.arithmetic_base import pretrained_base
from backflip.lab.r1_figures import CONSISTENCY, dead_share, distances, figures
from backflip.lab.r1_settings import Settings
from backflip.lab.stages import columns, improved, kept
from backflip.policies.language import LanguagePolicy
from backflip.policies.loading import load_policy
from backflip.records import Prompt, Sample
from backflip.rewards.protocol import score
from backflip.rewards.weighted import Weighted
from backflip.rollout.local import generate_samples
from backflip.rounds.stages import supervised
from backflip.runs import Run
from backflip.runs.atomic import write_atomic
from backflip.seeds import Seeds
from backflip.settings import SFT
from backflip.train.online import improve
from backflip.train.sft import encode_demonstrations
from backflip.worlds.arithmetic import accuracy, format_tags
from backflip.worlds.arithmetic.checks import FORMAT_REWARD

__all__ = ["cold_start", "curve", "imitate", "measured", "pretrained_base", "reinforce", "right_samples"]

Rows = list[tuple[Prompt, str]]


def rewards(language: float) -> Weighted:
    """Accuracy and format, and the language of the thoughts with this weight; at 0 it is only logged."""
    return Weighted({"accuracy": (accuracy, 1.0), "format": (format_tags, FORMAT_REWARD), "language": (CONSISTENCY, language)})


def _problems(settings: Settings, seeds: Seeds, name: str, tries: int) -> list[Prompt]:
    """Training problems for as many completions as a run of reinforcement draws, so many of each."""
    return settings.world().prompts(settings.drawn() // tries, seeds.child("problems", name))


def cold_start(folder: Path, start: Path, settings: Settings, seeds: Seeds, quiet: bool) -> Path:
    """Fine-tune on a few faultless full scratchpads."""
    rows = settings.world().worked(settings.demonstrations, seeds, tongues=settings.tongues())
    return imitate(folder, start, rows, settings.cold, seeds, quiet)


def imitate(folder: Path, start: Path, rows: Rows, settings: SFT, seeds: Seeds, quiet: bool) -> Path:
    """Fine-tune the model in `start` on problems and completions; returns the folder of the model: `start` if there are none."""
    if not rows:
        return start
    return supervised(
        folder, settings, lambda: load_policy(start, name=folder.name),
        lambda policy: encode_demonstrations(policy, rows, settings), seeds=seeds, quiet=quiet,
    )  # fmt: skip


def reinforce(
    folder: Path, start: Path, settings: Settings, seeds: Seeds, quiet: bool, *, language: float, problems: str
) -> Path:
    """GRPO on the model in `start`, on the problems of that name, each once; returns the folder of the model."""

    def work(policy: LanguagePolicy, run: Run) -> dict[str, float]:
        prompts = _problems(settings, seeds, problems, settings.grpo.num_generations)
        return improve(policy, prompts, rewards(language), settings.grpo, run, seeds=seeds, gold=accuracy)

    return improved(folder, start, settings.grpo, work, kind="r1", quiet=quiet)


def right_samples(
    path: Path, model: Path, settings: Settings, seeds: Seeds, *, problems: str, tries: int
) -> tuple[Rows, dict[str, float]]:
    """Draw as many completions as a run of reinforcement does, `tries` of each problem of that name, and keep the right ones
    once each.

    Returns them and their numbers; drawn once and kept in `path`.
    """

    def draw() -> dict[str, Any]:
        groups = generate_samples(
            load_policy(model), _problems(settings, seeds, problems, tries), n=tries,
            seeds=seeds.child("samples", path.stem), settings=settings.grpo.sampling,
        )  # fmt: skip
        samples = [s for group in groups for s in group]
        right = [s for s, is_right in zip(samples, _right(samples), strict=True) if is_right]
        once = list({(s.prompt.plain, s.text): s for s in right}.values())
        lines = [{"prompt": s.prompt.plain, "completion": s.text, **s.prompt.columns} for s in once]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        return {"drawn": len(samples), "right": len(right), "different": len(once)}

    numbers = kept(path.with_suffix(".json"), draw)
    rows = read_demonstrations(path) if numbers["different"] else []
    return [(row.prompt, row.completion) for row in rows], numbers


def _right(samples: list[Sample]) -> list[bool]:
    """Whether each is finished and its answer right."""
    scores = score(accuracy, [s.prompt for s in samples], [s.text for s in samples])
    return [s.finished and value == 1 for s, value in zip(samples, scores, strict=True)]


def measured(path: Path, model: Path, reference: Path | None, settings: Settings, seeds: Seeds) -> dict[str, Any]:
    """The figures of a model on test problems at temperature 1, and a few of its texts; measured once and kept in `path`.

    Every model of a seed meets the same problems. `reference` is the model that its stage began with.
    """

    def measure() -> dict[str, Any]:
        policy, sampling = load_policy(model), settings.grpo.sampling
        prompts = settings.world().prompts(settings.problems, seeds.child("test"), "test")
        draws = seeds.child("measure", path.stem)
        samples = [s for [s] in generate_samples(policy, prompts, n=1, seeds=draws.child("once"), settings=sampling)]
        groups = generate_samples(
            policy, prompts[: settings.groups], n=settings.grpo.num_generations, seeds=draws.child("groups"), settings=sampling
        )
        return {
            **figures(samples),
            **distances(policy, None if reference is None else load_policy(reference), samples),
            "dead groups": dead_share([[float(right) for right in _right(group)] for group in groups]),
            "shown": [{"prompt": s.prompt.plain, "text": s.text} for s in samples[:6]],
        }

    return kept(path, measure)


def curve(folder: Path) -> dict[str, list[float]]:
    """A run of reinforcement step by step."""
    names = {
        "step": "step", "accuracy": "objective/gold", "language": "rewards/language/mean", "format": "rewards/format/mean",
        "length": "rollout/length", "entropy": "objective/entropy", "kl": "kl/seq_nats", "dead groups": "group/zero_std_share",
    }  # fmt: skip
    return columns(folder, names)
