"""The work of `generator-gap`.

SEED/base/          pretraining                      SEED/judge-NOISE/     a reward model of comparisons of that noise
SEED/write-WRITER/  fine-tuning on demonstrations    SEED/learn-NOISE/     fine-tuning on what that judge picked
SEED/gap.json       picking beside writing           SEED/measured/        what each policy writes
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import backflip as bf
from backflip.feedback.labelers import Oracle
from backflip.feedback.queries import pair_queries
from backflip.lab.generator_gap_settings import Settings
from backflip.lab.stages import kept
from backflip.maths.shares import wilson_share
from backflip.policies.loading import load_policy
from backflip.records import Prompt, Sample
from backflip.rewards.learned import RewardModel
from backflip.rollout.local import generate_samples
from backflip.seeds import Seeds
from backflip.worlds.reviews import Reviews
from backflip.worlds.reviews.grammar import Rates, draw_review, read_prompt, write

WRITERS: dict[str, Rates | None] = {
    "typical": None,
    "expert": Rates(positive=0.97, descriptive=0.9, on_topic=1.0, right=1.0, complete=1.0),
}
"""How people write: as in the world's demonstrations (None), each with a share of praise of their own, or as gold likes it."""


def samples_of(policy: Path, prompts: Sequence[Prompt], n: int, settings: Settings, seeds: Seeds) -> list[list[Sample]]:
    """n texts of a policy for each prompt."""
    return generate_samples(load_policy(policy, name=policy.parent.name), prompts, n=n, seeds=seeds, settings=settings.sampling)


def judge_of(
    folder: Path, base: Path, noise: float, settings: Settings, seeds: Seeds, seed: int, quiet: bool
) -> RewardModel:  # fmt: skip
    """A reward model of comparisons of what the base model writes, so many of them answered blindly."""
    world = Reviews()
    prompts = world.prompts(settings.comparisons, seeds.child("compared"))
    queries = pair_queries(samples_of(base, prompts, 2, settings, seeds.child("compared")), seeds=seeds.child("pairs"))
    oracle = Oracle(world.gold, seeds=seeds.child("answers"), noise=noise, temperature=settings.choice_temperature)
    comparisons = [each for query in queries for each in oracle.answer(query).comparisons(query)]
    numbers = {field.name: getattr(settings.reward, field.name) for field in dataclasses.fields(settings.reward)}
    model = bf.fit_reward(load_policy(base), comparisons, folder / f"judge-{noise:g}", seed=seed, quiet=quiet, **numbers)
    assert isinstance(model, RewardModel), "an ensemble was not asked for"
    return model


def gap(path: Path, base: Path, judges: Mapping[str, RewardModel], settings: Settings, seeds: Seeds) -> dict[str, Any]:
    """Of samples of the base model: how often one is good, and how often the one that each judge picks among n is.

    `picked` is P(the picked one is good | a good one is there), `any` how often one is there (an oracle's best of n), `gold` the
    mean gold of the picked one.
    """

    def measure() -> dict[str, Any]:
        world = Reviews()
        prompts = world.prompts(settings.problems, seeds.child("test"), "test")
        groups = samples_of(base, prompts, settings.tries, settings, seeds.child("gap"))
        gold_PN = np.array([[world.gold(p, s.text) for s in group] for p, group in zip(prompts, groups, strict=True)])
        good_PN = gold_PN >= settings.good
        found: dict[str, Any] = {"good": float(good_PN.mean()), "gold": float(gold_PN.mean()), "judges": {}}
        counts = [n for n in (2, 4, 8, 16, 32, 64) if n < settings.tries] + [settings.tries]
        flat = [(p, s.text) for p, group in zip(prompts, groups, strict=True) for s in group]
        for name, model in judges.items():
            score_PN = np.array(model([p for p, _ in flat], [t for _, t in flat])).reshape(gold_PN.shape)
            tries = {}
            for n in counts:
                best_P = score_PN[:, :n].argmax(axis=1)
                rows = np.arange(len(best_P))
                there_P = good_PN[:, :n].any(axis=1)
                picked = wilson_share(float(good_PN[rows, best_P][there_P].sum()), int(there_P.sum()))
                tries[str(n)] = {
                    "picked": picked.value or 0.0, "low": picked.low or 0.0, "high": picked.high or 0.0,
                    "any": float(there_P.mean()),
                    "good": float(good_PN[rows, best_P].mean()), "gold": float(gold_PN[rows, best_P].mean()),
                }  # fmt: skip
            score_P, gold_P = (np.sign(values[:, 0] - values[:, 1]) for values in (score_PN, gold_PN))
            # Of two equally good texts either is right; where two score the same half of the pairs is.
            right = np.where(gold_P == 0, 1.0, 0.5 + 0.5 * score_P * gold_P)
            found["judges"][name] = {"accuracy": float(right.mean()), "tries": tries}
        return found

    return kept(path, measure)


def imitate(
    folder: Path, base: Path, writer: str, settings: Settings, seeds: Seeds, seed: int, quiet: bool
) -> Path:  # fmt: skip
    """The base model fine-tuned on as many demonstrations as people have the time to write."""
    n = max(1, round(settings.comparisons / settings.cost))
    return _finetuned(folder / f"write-{writer}", base, _written(writer, n, seeds.child("written")), settings, seed, quiet)


def distil(
    folder: Path, base: Path, noise: str, model: RewardModel, settings: Settings, seeds: Seeds, seed: int, quiet: bool
) -> Path:  # fmt: skip
    """The base model fine-tuned on what a judge picks among its own samples (best-of-n distillation)."""
    place = folder / f"learn-{noise}"
    if (place / "model").is_dir():
        return place / "model"
    prompts = Reviews().prompts(settings.learned_prompts, seeds.child("learned"))
    groups = samples_of(base, prompts, settings.tries, settings, seeds.child("learned"))
    rows = []
    for prompt, group in zip(prompts, groups, strict=True):
        scores = model([prompt] * len(group), [sample.text for sample in group])
        rows.append((prompt, group[int(np.argmax(scores))].text))
    return _finetuned(place, base, rows, settings, seed, quiet)


def measured(path: Path, policy: Path, settings: Settings, seeds: Seeds) -> dict[str, Any]:
    """What a policy writes for the test prompts, one text each: gold, how many are good, how long they are."""

    def measure() -> dict[str, Any]:
        world = Reviews()
        prompts = world.prompts(settings.problems, seeds.child("test"), "test")
        texts = [group[0].text for group in samples_of(policy, prompts, 1, settings, seeds.child("measured"))]
        gold = np.array([world.gold(p, t) for p, t in zip(prompts, texts, strict=True)])
        return {
            "gold": float(gold.mean()), "se": float(gold.std(ddof=1) / len(gold) ** 0.5),
            "good": float((gold >= settings.good).mean()),
            "words": float(np.mean([len(text.split()) for text in texts])),
            "different": len(set(texts)) / len(texts),
            "shown": [{"prompt": p.plain, "text": t} for p, t in zip(prompts[:3], texts, strict=False)],
        }  # fmt: skip

    return kept(path, measure)


def _written(writer: str, n: int, seeds: Seeds) -> list[tuple[Prompt, str]]:
    rates = WRITERS[writer]
    if rates is None:
        return Reviews().demonstrations(n, seeds)
    rng, rows = random.Random(seeds.integer("written", writer)), []
    for prompt in Reviews().prompts(n, seeds):
        facts = read_prompt(prompt.plain)
        assert facts is not None
        rows.append((prompt, write(draw_review(facts, rates, rng))))
    return rows


def _finetuned(
    folder: Path, base: Path, rows: Sequence[tuple[Prompt, str]], settings: Settings, seed: int, quiet: bool
) -> Path:  # fmt: skip
    numbers = {field.name: getattr(settings.finetune, field.name) for field in dataclasses.fields(settings.finetune)}
    bf.sft(load_policy(base), list(rows), folder, seed=seed, quiet=quiet, **numbers)
    return folder / "model"
