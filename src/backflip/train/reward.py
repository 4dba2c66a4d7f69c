"""Fit a reward model to comparisons (Bradley–Terry).

    L = − Σ w · [p log σ(r_left − r_right) + (1 − p) log σ(r_right − r_left)] / Σ w

(Christiano et al. 2017, eq. 1 with soft labels; Ouyang et al. 2022, eq. 1). All pairs of one question stand in one batch
and each completion is read once, for shuffled pairs over-fit within an epoch (InstructGPT, footnote 5).

Legend: B unique completions, N comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from backflip.errors import DataError
from backflip.maths.preference import bradley_terry
from backflip.policies.language import training_mode
from backflip.policies.recompute import recompute
from backflip.records import Comparison, Prompt, Sample, content_id
from backflip.rewards.learned import RewardModel
from backflip.rewards.protocol import score
from backflip.runs import Run
from backflip.seeds import Seeds, cyclic_batch
from backflip.settings import Reward
from backflip.train.comparisons import Question, RewardReport, judge, split_questions
from backflip.train.learner import Learner, Share
from backflip.train.state import Inputs, resume, save

Encoded = dict[tuple[str, str], list[int]]
"""Ids by prompt and completion."""


def fit_reward(
    model: RewardModel,
    comparisons: Sequence[Comparison],
    settings: Reward,
    run: Run,
    *,
    seeds: Seeds,
    samples: Sequence[Sample] = (),
) -> RewardReport:
    """Train `model` in place and measure it on the questions held out.

    Scores are scaled to mean 0 and standard deviation 1 on `samples` of the policy (without any: on the compared
    completions) before and after training. Raises DataError when there is nothing to learn from.
    """
    train, held = split_questions(comparisons, settings.holdout, seeds)
    if not train:
        raise DataError("there are no comparisons to learn from; every verdict was a skip, or the store is empty")
    ruler = _ruler(samples, comparisons, settings, seeds)
    total = math.ceil(settings.epochs * len(train) / settings.batch_size)
    learner = Learner(model.parameters(), settings.optim, total=total, say=run.say)
    if settings.optim.gradient_checkpointing:
        recompute(model.model)
    if not settings.train_gain:
        model.gain.requires_grad_(False)
    models = {"reward": model}
    inputs: Inputs = {"seed": seeds.root, "comparisons": content_id(comparisons)}
    start = resume(run, models, learner, inputs=inputs)["step"]
    if start == 0 and settings.normalize_before:
        model.normalize(score(model, *ruler))
    with run.progress(total, "reward model", done=start) as bar:
        for step in range(start, total):
            batch = [train[i] for i in cyclic_batch(seeds, len(train), settings.batch_size, step)]
            weight = sum(c.weight for question in batch for c in question)
            with training_mode(model.model, settings.dropout, seed=seeds.integer("dropout", step)):
                encoded = _encode(model, batch)
                tokens = [_tokens(encoded, question) for question in batch]
                update = learner.update(batch, partial(_share, model, encoded, weight=weight), tokens=tokens)
            if (step + 1) % settings.log_every == 0 or step + 1 == total:
                run.log(
                    step + 1,
                    {
                        "loss/reward": update.loss,
                        "grad_norm": update.grad_norm,
                        "lr": update.learning_rate,
                        "gain": model.gain.item(),
                    },
                )
            if run.asked or (step + 1) % settings.save_every == 0 or step + 1 == total:
                save(run, step + 1, models, learner, {}, inputs=inputs)
            bar.advance(loss=update.loss)
            if step + 1 < total:
                run.obey(step + 1)
    if settings.normalize_after:
        model.normalize(score(model, *ruler))
    model.fold()
    model.gain.requires_grad_(True)
    return measure(model, [c for question in held or train for c in question])


def measure(model: RewardModel, comparisons: Sequence[Comparison]) -> RewardReport:
    """Accuracy, calibration and length bias of a reward model on comparisons; a completion that stands in many is read once."""
    texts = {_key(c, text): (c.prompt, text) for c in comparisons for text in (c.left, c.right)}
    scores = score(model, [prompt for prompt, _ in texts.values()], [text for _, text in texts.values()])
    found = dict(zip(texts, scores, strict=True))
    left = [found[_key(c, c.left)] for c in comparisons]
    right = [found[_key(c, c.right)] for c in comparisons]
    return judge(left, right, comparisons)


def _encode(model: RewardModel, questions: Sequence[Question]) -> Encoded:
    """Ids of every different completion of these questions, its prompt with it."""
    texts = {_key(c, text): (c.prompt, text) for question in questions for c in question for text in (c.left, c.right)}
    return {key: model.encode(*pair) for key, pair in texts.items()}


def _key(comparison: Comparison, text: str) -> tuple[str, str]:
    return comparison.prompt.id, text


def _tokens(encoded: Encoded, question: Question) -> int:
    """Tokens that reading a question takes."""
    return sum(len(encoded[key]) for key in {_key(c, text) for c in question for text in (c.left, c.right)})


def _share(model: RewardModel, encoded: Encoded, questions: Sequence[Question], weight: float) -> Share:
    """These questions' share of the batch's loss; `weight` is the whole batch's."""
    pairs = [comparison for question in questions for comparison in question]
    place: dict[tuple[str, str], int] = {}
    for c in pairs:
        for text in (c.left, c.right):
            place.setdefault(_key(c, text), len(place))
    rows = [encoded[key] for key in place]
    scores_B = model.scores(rows)
    left_N = scores_B[[place[_key(c, c.left)] for c in pairs]]
    right_N = scores_B[[place[_key(c, c.right)] for c in pairs]]

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=scores_B.dtype, device=scores_B.device)

    found = bradley_terry(
        left_N,
        right_N,
        column([c.p_left for c in pairs]),
        margin_N=column([c.margin for c in pairs]),
        weight_N=column([c.weight for c in pairs]),
        denominator=weight,
    )
    return Share(found.loss)


def _ruler(
    samples: Sequence[Sample], comparisons: Sequence[Comparison], settings: Reward, seeds: Seeds
) -> tuple[list[Prompt], list[str]]:
    """The prompts and completions on which scores are scaled."""
    pool = [(s.prompt, s.text) for s in samples] or [(c.prompt, text) for c in comparisons for text in (c.left, c.right)]
    chosen = [pool[i] for i in seeds.permutation(len(pool), "normalization")[: settings.normalization_samples]]
    return [prompt for prompt, _ in chosen], [text for _, text in chosen]
