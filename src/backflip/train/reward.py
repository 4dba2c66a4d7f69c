"""Fit a reward model to comparisons.

    L = − Σ w · [p log σ(r_left − r_right) + (1 − p) log σ(r_right − r_left)] / Σ w

(Christiano et al. 2017, eq. 1 with soft labels; Ouyang et al. 2022, eq. 1), or another loss of `objectives`. All pairs of one
question stand in one batch and each completion is read once, for shuffled pairs over-fit within an epoch (InstructGPT,
footnote 5).

Legend: B unique completions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from backflip.policies.language import training_mode
from backflip.policies.recompute import recompute
from backflip.records import Comparison, Prompt, Sample, content_id
from backflip.rewards.learned import RewardModel
from backflip.rewards.protocol import RewardFunction, score
from backflip.runs import Run
from backflip.seeds import Seeds, cyclic_batch
from backflip.settings import Reward
from backflip.train import objectives
from backflip.train.comparisons import RewardReport, judge, sound, split_questions
from backflip.train.learner import Learner, Share
from backflip.train.objectives import Unit
from backflip.train.rankings import Key
from backflip.train.state import Inputs, resume, save

Encoded = dict[Key, list[int]]
"""Ids by prompt and completion."""


def fit_reward(
    model: RewardModel,
    comparisons: Sequence[Comparison],
    settings: Reward,
    run: Run,
    *,
    seeds: Seeds,
    samples: Sequence[Sample] = (),
    demonstrations: Sequence[tuple[Prompt, str]] = (),
) -> RewardReport:
    """Train `model` in place and measure it on the questions held out.

    Comparisons that can teach nothing are left out and counted (`sound`). Scores are scaled to mean 0 and standard deviation 1
    on `samples` of the policy (without any: on the compared completions) before and after training; with `demonstrations`
    they are then shifted so that those have mean 0 (InstructGPT, section 3.5). Raises DataError when there is nothing to learn
    from.
    """
    comparisons = sound(comparisons, run.say).kept
    train, held = split_questions(comparisons, settings.holdout, seeds)
    units = objectives.units(train, settings, seeds)
    ruler = _ruler(samples, comparisons, settings, seeds)
    total = math.ceil(settings.epochs * len(units) / settings.batch_size)
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
            batch = [units[i] for i in cyclic_batch(seeds, len(units), settings.batch_size, step)]
            weight = sum(unit.weight for unit in batch)
            with training_mode(model.model, settings.dropout, seed=seeds.integer("dropout", step)):
                encoded = _encode(model, batch)
                tokens = [sum(len(encoded[key]) for key in unit.texts) for unit in batch]
                update = learner.update(batch, partial(_share, model, encoded, settings=settings, weight=weight), tokens=tokens)
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
    if demonstrations:
        model.shift(score(model, [prompt for prompt, _ in demonstrations], [text for _, text in demonstrations]))
    model.fold()
    model.gain.requires_grad_(True)
    return measure(model, [c for question in held or train for c in question])


def measure(model: RewardFunction, comparisons: Sequence[Comparison]) -> RewardReport:
    """Accuracy, calibration and length bias of a reward model on comparisons; a completion that stands in many is read once."""
    texts = {(c.prompt.id, text): (c.prompt, text) for c in comparisons for text in (c.left, c.right)}
    scores = score(model, [prompt for prompt, _ in texts.values()], [text for _, text in texts.values()])
    found = dict(zip(texts, scores, strict=True))
    left = [found[c.prompt.id, c.left] for c in comparisons]
    right = [found[c.prompt.id, c.right] for c in comparisons]
    return judge(left, right, comparisons)


def _encode(model: RewardModel, batch: Sequence[Unit]) -> Encoded:
    """Ids of every different completion of a batch, its prompt with it."""
    return {key: model.encode(prompt, key[1]) for unit in batch for key, prompt in unit.texts.items()}


def _share(model: RewardModel, encoded: Encoded, batch: Sequence[Unit], settings: Reward, weight: float) -> Share:
    """These units' share of the batch's loss; `weight` is the whole batch's."""
    place: dict[Key, int] = {}
    for unit in batch:
        for key in unit.texts:
            place.setdefault(key, len(place))
    scores_B = model.scores([encoded[key] for key in place])
    return Share(objectives.loss_of(batch, place, scores_B, settings, weight))


def _ruler(
    samples: Sequence[Sample], comparisons: Sequence[Comparison], settings: Reward, seeds: Seeds
) -> tuple[list[Prompt], list[str]]:
    """The prompts and completions on which scores are scaled."""
    pool = [(s.prompt, s.text) for s in samples] or [(c.prompt, text) for c in comparisons for text in (c.left, c.right)]
    chosen = [pool[i] for i in seeds.permutation(len(pool), "normalization")[: settings.normalization_samples]]
    return [prompt for prompt, _ in chosen], [text for _, text in chosen]
