"""The work of `grue`: base models, one algorithm after another, and measuring.

SEED/TASK/base/    pretraining        SEED/TASK/ALGORITHM/                    one run of the online loop
SEED/TASK/judge/   another one's      SEED/TASK/measured/ALGORITHM-STEP.json  figures of one checkpoint
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from backflip.lab.grue_settings import Settings
from backflip.lab.grue_tasks import NUMBERS, Task
from backflip.lab.stages import checkpoints, improved, kept, pretrained
from backflip.policies.language import LanguagePolicy
from backflip.policies.loading import load_policy
from backflip.policies.tokens import token_batch
from backflip.rollout.local import generate_samples
from backflip.rounds.stages import supervised, untrained
from backflip.runs import Run
from backflip.seeds import Seeds
from backflip.settings import Online, Sampling
from backflip.train.online import improve
from backflip.train.sft import encode_demonstrations


def base(task: Task, settings: Settings, folder: Path, seeds: Seeds, quiet: bool) -> Path:
    """Pretrain in `folder` on texts of its own; returns the folder of the model. The tokenizer of a task is always the same."""
    if task.name == "numbers":
        words = [f"{number:02d}" for number in range(NUMBERS)]
        return pretrained(
            folder, settings.tiny, words, lambda: task.corpus(settings.documents, seeds), settings.pretrain, seeds, quiet
        )
    rows = task.corpus(settings.documents, seeds)
    vocabulary = task.corpus(settings.documents, Seeds(0))
    return supervised(
        folder, settings.pretrain, lambda: untrained(settings.tiny, vocabulary, seeds),
        lambda policy: encode_demonstrations(policy, rows, settings.pretrain), seeds=seeds, quiet=quiet,
    )  # fmt: skip


def reinforce(task: Task, folder: Path, start: Path, settings: Online, seeds: Seeds, quiet: bool) -> dict[int, Path]:
    """Improve the model in `start`; returns the models on the way and at the end, by the number of steps before them."""
    prompts = task.prompts(settings.steps * settings.batch_size, seeds.child("prompts"), False)

    def work(policy: LanguagePolicy, run: Run) -> dict[str, float]:
        return improve(policy, prompts, task.reward, settings, run, seeds=seeds)

    improved(folder, start, settings, work, kind="grue", quiet=quiet, keep=settings.steps)
    return checkpoints(folder)


def measured(
    task: Task, path: Path, model: Path, start: Path, judge: Path, settings: Settings, seeds: Seeds
) -> dict[str, Any]:  # fmt: skip
    """Reward, perplexity under the judge, KL to the start and a few texts of a model, drawn without a mask at temperature 1."""

    def measure() -> dict[str, Any]:
        policy, prompts = load_policy(model), task.prompts(settings.problems, seeds.child("test"), True)
        sampling = Sampling(temperature=1.0, max_new_tokens=task.max_new_tokens, slots=256)
        samples = [s for [s] in generate_samples(policy, prompts, n=1, seeds=seeds.child("measure"), settings=sampling)]
        batch = token_batch([policy.encode(p) for p in prompts], [s.tokens for s in samples], fill=policy.fill_id)
        on_BT = batch.mask_BT.bool()
        with torch.no_grad():
            models = (policy, load_policy(start), load_policy(judge))
            own_BT, first_BT, judged_BT = (each.score(batch).logps_BT for each in models)
        log_ratio_BT = (own_BT - first_BT) * on_BT
        texts = [s.text for s in samples]
        rewards = task.reward([p.plain for p in prompts], texts)
        return {
            "reward": sum(rewards) / len(rewards),
            "perplexity": math.exp(-judged_BT[on_BT].double().mean().item()),
            "kl/seq_nats": log_ratio_BT.sum(1).mean().item(),
            "kl/tok_nats": (log_ratio_BT.sum() / on_BT.sum()).item(),
            "length": on_BT.sum(1).double().mean().item(),
            "different": len(set(texts)) / len(texts),
            "shown": [{"prompt": p.plain, "text": text} for p, text in zip(prompts[:4], texts, strict=False)],
        }

    return kept(path, measure)
