"""The work of `test-time`: completions of a base model, a verifier that learns from some of them, and trying the others.

    SEED/base/            pretraining, unless the base model is borrowed
    SEED/lessons.jsonl    pairs of a right and a wrong completion of a training problem
    SEED/verifier/        the run that fits the verifier to them, model/ inside
    SEED/tries.json       every try at the test problems, judged by the exact checker and scored by the verifier

Every stage is a run that can be resumed, or a file that is there whole or not at all.
"""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import backflip as bf
from backflip.lab.stages import kept
from backflip.lab.test_time_figures import Problem, judged, pairs_of
from backflip.lab.test_time_settings import Settings
from backflip.policies.loading import load_policy
from backflip.records import Comparison
from backflip.rewards.learned import RewardModel
from backflip.rollout.local import generate_samples
from backflip.runs.atomic import once, write_atomic
from backflip.runs.logs import read_object
from backflip.seeds import Seeds
from backflip.worlds.arithmetic import Arithmetic


def lessons(path: Path, base: Path, settings: Settings, seeds: Seeds) -> list[Comparison]:
    """What the verifier learns from: the base model's own completions of training problems, right ones above wrong ones."""
    if not path.exists():
        prompts = Arithmetic().prompts(settings.verifier_problems, seeds.child("verifier"))
        groups = generate_samples(
            load_policy(base), prompts, n=settings.verifier_tries, seeds=seeds.child("lessons"), settings=settings.sampling
        )
        rng = random.Random(seeds.integer("pairs"))
        found = [pair for p, samples in zip(prompts, groups, strict=True) for pair in pairs_of(p, samples, settings.pairs, rng)]
        write_atomic(path, "".join(json.dumps(pair.to_json()) + "\n" for pair in found))
    return [Comparison.from_json(json.loads(line)) for line in path.read_text().splitlines()]


def verifier(folder: Path, base: Path, pairs: list[Comparison], settings: Settings, seed: int, quiet: bool) -> Path:
    """Fit a reward model, its body the base model's, to the pairs; returns the folder of the model.

    A base model that is never right leaves no pairs: the verifier then stays as it begins, with an accuracy of None.
    """
    if not pairs:
        once(folder / "model", RewardModel.from_policy(load_policy(base), seeds=Seeds(seed)).save)
        write_atomic(folder / "result.json", json.dumps({"accuracy": None, "n": 0}) + "\n")
        return folder / "model"
    numbers = {field.name: getattr(settings.verifier, field.name) for field in dataclasses.fields(settings.verifier)}
    bf.fit_reward(load_policy(base), pairs, folder, seed=seed, quiet=quiet, **numbers)
    return folder / "model"


def tries(path: Path, base: Path, verifier: Path, settings: Settings, seeds: Seeds) -> list[Problem]:
    """Every try at the test problems, which stand in no corpus; made once and kept in `path`."""

    def make() -> dict[str, Any]:
        model, policy = RewardModel.load(verifier), load_policy(base)
        prompts = Arithmetic().prompts(settings.problems, seeds.child("test"), "test")
        groups = generate_samples(policy, prompts, n=settings.tries, seeds=seeds.child("tries"), settings=settings.sampling)
        problems = [
            judged(prompt, samples, model([prompt.plain] * len(samples), [s.text for s in samples]))
            for prompt, samples in zip(prompts, groups, strict=True)
        ]
        return {"problems": [problem.to_json() for problem in problems]}

    return [Problem(**row) for row in kept(path, make)["problems"]]


def quality(folder: Path) -> dict[str, Any]:
    """What the run that fitted the verifier says of it, on problems it has not seen."""
    return read_object(folder / "result.json")
