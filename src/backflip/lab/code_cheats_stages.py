"""The work of `code-cheats`: a base model from a noisy corpus, reinforcement under one reward, and measuring.

SEED/base/              pretraining                        SEED/measured/NAME.json   figures of one model
SEED/REGIME/easy/       the online loop on easy tasks      SEED/REGIME/all/          and then on all of them
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from backflip.lab.code_cheats_figures import SHARES, derived, summarize, with_figures
from backflip.lab.code_cheats_settings import Regime, Settings
from backflip.lab.stages import columns, improved, kept, pretrained
from backflip.policies.language import LanguagePolicy
from backflip.policies.loading import load_policy
from backflip.rollout.local import generate_samples
from backflip.runs import Run
from backflip.seeds import Seeds
from backflip.train.online import improve
from backflip.worlds.programs import WORDS, Programs

Phase = Literal["easy", "all"]
PHASES: tuple[Phase, ...] = ("easy", "all")


def base(settings: Settings, folder: Path, seeds: Seeds, quiet: bool) -> Path:
    """Pretrain in `folder`; returns the folder of the model."""
    world = Programs(longest=settings.longest)
    return pretrained(
        folder, settings.tiny, WORDS,
        lambda: world.corpus(settings.documents, seeds, habits=settings.habits(), asked=settings.asked),
        settings.pretrain, seeds, quiet,
    )  # fmt: skip


def reinforce(folder: Path, start: Path, regime: Regime, settings: Settings, seeds: Seeds, quiet: bool) -> Path:
    """Improve the model in `start`, on easy tasks first, so that solving them is a way to be rewarded too; returns the folder of
    the model it ends with."""
    model = start
    for phase in PHASES:
        model = _improved(folder / phase, model, start, phase, regime, settings, seeds, quiet)
    return model


def _improved(
    folder: Path, model: Path, reference: Path, phase: Phase, regime: Regime, settings: Settings, seeds: Seeds, quiet: bool
) -> Path:
    """One part of a run. Every regime meets the same tasks in the same order, each once, and is held to the base model."""
    online = settings.easy() if phase == "easy" else settings.grpo
    world = Programs(longest=settings.longest)
    levels = world.levels[:1] if phase == "easy" else world.levels

    def work(policy: LanguagePolicy, run: Run) -> dict[str, float]:
        n = online.steps * online.batch_size // online.num_generations
        prompts = world.prompts(n, seeds.child("tasks", phase), levels=levels, asked=regime.asked)
        return improve(
            policy, prompts, with_figures(regime.reward), online, run, seeds=seeds.child(phase),
            reference=load_policy(reference),
        )  # fmt: skip

    return improved(folder, model, online, work, kind="code-cheats", quiet=quiet)


def measured(path: Path, model: Path, settings: Settings, seeds: Seeds, *, asked: bool) -> dict[str, Any]:
    """The figures of a model on test tasks, and a few of its programs; measured once and kept in `path`.

    Every model of a seed meets the same tasks.
    """

    def measure() -> dict[str, Any]:
        prompts = Programs(longest=settings.longest).prompts(settings.tasks, seeds.child("test"), "test", asked=asked)
        groups = generate_samples(
            load_policy(model), prompts, n=settings.tries, seeds=seeds.child("measure", path.stem),
            settings=settings.grpo.sampling,
        )  # fmt: skip
        rows = [(prompt, s.text) for prompt, samples in zip(prompts, groups, strict=True) for s in samples]
        shown = [
            {"prompt": p.plain, "planted": p.columns["planted"], "texts": [s.text for s in samples[:3]]}
            for p, samples in zip(prompts[:6], groups, strict=False)
        ]
        return summarize(rows) | {"shown": shown}

    return kept(path, measure)


def curve(folder: Path) -> dict[str, list[float | None]]:
    """A run's figures step by step, the easy part first."""
    names = {"step": "step", "kl": "kl/seq_nats", "entropy": "objective/entropy", "reward": "rewards/reward/mean"}
    names |= {name: f"rewards/{name}/mean" for name in SHARES}
    easy, rest = (columns(folder / phase, names) for phase in PHASES)
    found: dict[str, list[float | None]] = {name: [*easy[name], *rest[name]] for name in easy}
    found["step"] = [float(i + 1) for i in range(len(found["step"]))]
    steps = [derived({name: values[i] or 0.0 for name, values in found.items()}) for i in range(len(found["step"]))]
    return found | {name: [row[name] for row in steps] for name in ("hack_rate", "missed")}
