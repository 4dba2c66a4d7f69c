"""The work of `instructgpt`: a base model, demonstrations, rankings, reward models watched while they learn, and PPO.

SEED/base/  SEED/sft/  SEED/rankings.json  SEED/all-pairs/  SEED/shuffled/  SEED/reward/  SEED/VARIANT/  SEED/measured/
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from backflip.lab.instructgpt_settings import Settings
from backflip.lab.stages import columns, improved, kept
from backflip.policies.language import LanguagePolicy
from backflip.policies.loading import load_policy
from backflip.records import Comparison, Prompt
from backflip.rewards.learned import RewardModel
from backflip.rewards.protocol import score
from backflip.rollout.local import generate_samples
from backflip.rounds.loop import once
from backflip.rounds.measure import sequence_kl
from backflip.rounds.stages import packed, supervised, untrained
from backflip.runs import Run
from backflip.seeds import Seeds
from backflip.settings import Online, Reward
from backflip.train.examples import Example, negative_log_likelihood
from backflip.train.online import improve
from backflip.train.reward import fit_reward, measure
from backflip.train.sft import encode_demonstrations
from backflip.worlds.reviews import Reviews


def base_of(settings: Settings, folder: Path, seeds: Seeds, quiet: bool) -> Path:
    """A model of the corpus, every style of it; returns its folder."""
    rows = documents(settings.documents, seeds.child("corpus"))
    return supervised(
        folder, settings.pretrain, lambda: untrained(settings.tiny, rows, seeds),
        lambda policy: packed(policy, rows, settings.pretrain), seeds=seeds, quiet=quiet,
    )  # fmt: skip


def documents(n: int, seeds: Seeds) -> list[tuple[Prompt, str]]:
    """Raw text of the corpus."""
    return [(Prompt(""), text) for text in Reviews().corpus(n, seeds)]


def sft_of(settings: Settings, folder: Path, base: Path, seeds: Seeds, quiet: bool) -> Path:
    """The base model fine-tuned on demonstrations: where PPO starts, and the reference of its KL."""
    rows = Reviews().demonstrations(settings.demonstrations, seeds.child("demonstrations"))
    return supervised(
        folder, settings.sft, lambda: load_policy(base), lambda policy: encode_demonstrations(policy, rows, settings.sft),
        seeds=seeds.child("sft"), quiet=quiet,
    )  # fmt: skip


def rankings_of(settings: Settings, path: Path, policy: Path, seeds: Seeds) -> tuple[list[Comparison], list[Comparison]]:
    """Rankings of the policy's samples as comparisons of all their pairs, to learn from and held out; kept in `path`.

    An annotator's ranking is a draw of Plackett and Luce: utility / noise plus a Gumbel variable each, sorted, so that every pair
    by itself is a Bradley–Terry choice. Texts that stand there twice are ranked once. The pairs of a ranking share a weight of 1.
    """

    def ask() -> dict[str, Any]:
        world, rng = Reviews(), random.Random(seeds.integer("rankings"))
        prompts = world.prompts(settings.rankings + settings.held, seeds.child("ranked"))
        drawn = generate_samples(
            load_policy(policy), prompts, n=settings.most, seeds=seeds.child("candidates"), settings=settings.ppo.sampling
        )
        rows = []
        for prompt, samples in zip(prompts, drawn, strict=True):
            texts = list(dict.fromkeys(s.text for s in samples[: rng.randint(settings.least, settings.most)]))
            felt = {
                text: world.gold(prompt, text) / settings.noise - math.log(-math.log(1.0 - rng.random() or 0.5)) for text in texts
            }
            rows.append([prompt.plain, sorted(texts, key=lambda text: -felt[text])])
        return {"prompt, best to worst": rows}

    [rows] = kept(path, ask).values()
    train, held = rows[: settings.rankings], rows[settings.rankings :]
    return _pairs(train, "train"), _pairs(held, "held")


def _pairs(rankings: Sequence[tuple[str, list[str]]], name: str) -> list[Comparison]:
    pairs = []
    for i, (prompt, texts) in enumerate(rankings):
        n = math.comb(len(texts), 2)
        pairs += [
            Comparison(Prompt(prompt), better, worse, p_left=1.0, weight=1 / n, query_id=f"{name} {i}")
            for better, worse in itertools.combinations(texts, 2)
        ]
    return pairs


def shuffled(pairs: Sequence[Comparison], settings: Settings) -> tuple[list[Comparison], Reward]:
    """The same pairs as so many questions, and as many of them in a batch as stand there on average when rankings are whole."""
    rankings = len({pair.query_id for pair in pairs})
    batch = round(settings.reward.batch_size * len(pairs) / rankings)
    return [dataclasses.replace(pair, query_id="") for pair in pairs], dataclasses.replace(settings.reward, batch_size=batch)


def watched(
    folder: Path, policy: Path, pairs: Sequence[Comparison], reward: Reward, train: Sequence[Comparison],
    held: Sequence[Comparison], settings: Settings, seeds: Seeds, quiet: bool,
) -> dict[str, list[float]]:  # fmt: skip
    """Fit a reward model to `pairs` for several passes and measure it on the way: its loss on what it learns from and on what
    it does not, and how often it is right there."""
    questions = len({pair.query_id for pair in pairs}) if pairs[0].query_id else len(pairs)
    every = max(1, round(questions / reward.batch_size / settings.looks))
    own = dataclasses.replace(reward, epochs=settings.passes, save_every=every)
    with Run.open(folder, kind="reward", settings=own, quiet=quiet, keep=settings.passes * (settings.looks + 2)) as run:
        if not run.finished:
            model = RewardModel.from_policy(load_policy(policy), seeds=seeds, max_length=own.max_length)
            run.finish(fit_reward(model, pairs, own, run, seeds=seeds)._asdict())

    def look() -> dict[str, Any]:
        rows = []
        for step, model in sorted(reward_models(folder).items()):
            judged, seen = measure(RewardModel.load(model), held), measure(RewardModel.load(model), train)
            passed = step * own.batch_size / questions
            rows.append([passed, seen.log_loss, judged.log_loss, judged.accuracy])
        names = ("passes", "train loss", "held loss", "held accuracy")
        return {name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}

    return kept(folder / "curve.json", look)


def reward_models(folder: Path) -> dict[int, Path]:
    """The reward models that a run left, by the number of updates before them."""
    return {int(path.name.removeprefix("step-")): path / "reward" for path in (folder / "checkpoints").glob("step-*")}


def reward_of(settings: Settings, folder: Path, watched: Path, curve: dict[str, list[float]], seeds: Seeds) -> Path:
    """The reward model of the run `watched` where it was best on rankings held out, shifted so that demonstrations score 0 on
    average (Ouyang et al. 2022, section 3.5) with a standard deviation of 1; returns its folder."""

    def save(path: Path) -> None:
        models = sorted(reward_models(watched).items())
        best = min(range(len(models)), key=lambda i: curve["held loss"][i])
        model = RewardModel.load(models[best][1])
        shown = Reviews().demonstrations(settings.demonstrations, seeds.child("demonstrations"))
        model.normalize(score(model, [prompt for prompt, _ in shown], [text for _, text in shown]))
        model.fold()
        model.save(path)

    once(folder, save)
    return folder


def tuned(
    folder: Path, policy: Path, reward: Path, settings: Settings, online: Online, seeds: Seeds, quiet: bool
) -> tuple[Path, dict[str, list[float]]]:  # fmt: skip
    """One PPO, gold watched beside the proxy; the model it ends with, and its figures step by step."""
    world = Reviews()

    def work(start: LanguagePolicy, run: Run) -> dict[str, float]:
        prompts = world.prompts(online.steps * online.batch_size, seeds.child("prompts"))
        texts = packed(start, documents(settings.documents, seeds.child("corpus")), settings.pretrain) if online.ptx_coef else []
        return improve(
            start, prompts, RewardModel.load(reward), online, run, seeds=seeds, gold=world.gold_reward, pretraining=texts
        )

    model = improved(folder, policy, online, work, kind="instructgpt", quiet=quiet)
    names = {"step": "step", "gold": "objective/gold", "proxy": "objective/scores", "kl": "kl/seq_nats"}
    return model, columns(folder, names)


def measured(path: Path, model: Path, start: Path, reward: Path, settings: Settings, seeds: Seeds) -> dict[str, Any]:
    """Gold and proxy of a model on prompts kept for testing, its KL to `start`, and its loss on text of the corpus that nothing
    learned from, in nats a token: what improvement cost."""

    def look() -> dict[str, Any]:
        world, policy = Reviews(), load_policy(model)
        prompts = world.prompts(settings.test, seeds.child("test"), "test")
        drawn = generate_samples(policy, prompts, n=1, seeds=seeds.child("measure"), settings=settings.ppo.sampling)
        samples = [s for [s] in drawn]
        texts = packed(policy, documents(settings.test, seeds.child("held corpus")), settings.pretrain)
        return {
            "gold": sum(world.gold(s.prompt, s.text) for s in samples) / len(samples),
            "proxy": sum(score(RewardModel.load(reward), prompts, [s.text for s in samples])) / len(samples),
            "kl": sequence_kl(policy, load_policy(start), samples, temperature=settings.ppo.sampling.temperature),
            "length": sum(len(s.tokens) for s in samples) / len(samples),
            "corpus loss": corpus_loss(policy, texts),
            "shown": [{"prompt": s.prompt.plain, "text": s.text} for s in samples[:4]],
        }

    return kept(path, look)


@torch.no_grad()
def corpus_loss(policy: LanguagePolicy, texts: Sequence[Example]) -> float:
    """−log π in nats per token of raw text."""
    total = sum(float(negative_log_likelihood(policy, texts[i : i + 64])) for i in range(0, len(texts), 64))
    return total / sum(len(text.response) for text in texts)
