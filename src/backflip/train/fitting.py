"""Fit one reward model, or several as an ensemble, or one for each fold of a cross-validation.

Each of several is a run of its own in the run's folder, and the whole goes on where it was:

    RUN/member0/ …     the members of an ensemble
    RUN/fold0/ …       the folds of a cross-validation
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from backflip.errors import DataError
from backflip.records import Comparison, Prompt, Sample
from backflip.rewards.ensemble import Ensemble, Learned
from backflip.rewards.learned import RewardModel
from backflip.rewards.protocol import score
from backflip.runs import Run
from backflip.runs.atomic import once
from backflip.seeds import Seeds
from backflip.settings import Members, Reward
from backflip.train.comparisons import Question, RewardReport, judge, sound, split_questions
from backflip.train.reward import fit_reward, measure

Begin = Callable[[Seeds], RewardModel]
"""Makes the model that training starts from; what is fresh in it is drawn from the seeds."""


class Fitted(NamedTuple):
    """What came out, and how good it is on questions that were held out."""

    model: Learned
    report: RewardReport


def fit(
    begin: Begin,
    comparisons: Sequence[Comparison],
    settings: Reward,
    run: Run,
    *,
    seeds: Seeds,
    samples: Sequence[Sample] = (),
    demonstrations: Sequence[tuple[Prompt, str]] = (),
) -> Fitted:
    """`train.reward.fit_reward` on what `begin` makes, or on each member of an ensemble.

    Members differ in the draw of what is fresh (the head), in the order of the data, and with `ensemble.bootstrap` in the
    questions they learn from; what is held out is held out from all. Each is normalised by itself. Raises what `fit_reward`
    raises.
    """
    if settings.ensemble.members == 1:
        model = begin(seeds)
        report = fit_reward(model, comparisons, settings, run, seeds=seeds, samples=samples, demonstrations=demonstrations)
        return Fitted(model, report)
    train, held = split_questions(sound(comparisons, run.say).kept, settings.holdout, seeds)
    alone = dataclasses.replace(settings, holdout=0.0, ensemble=Members())
    members: list[RewardModel] = []
    for k in range(settings.ensemble.members):
        own = seeds.child("member", k)
        questions = drawn(train, own) if settings.ensemble.bootstrap else train
        folder = run.folder / f"member{k}"
        with Run.open(folder, kind="reward", settings=alone, quiet=run.quiet) as part:
            if not part.finished:
                model, told = begin(own), [c for question in questions for c in question]
                report = fit_reward(model, told, alone, part, seeds=own, samples=samples, demonstrations=demonstrations)
                once(folder / "model", model.save)
                part.finish(report._asdict() | {"comparisons": len(told)})
        members.append(RewardModel.load(folder / "model"))
        run.obey(where="between two members")
    ensemble = Ensemble(members, combine=settings.ensemble.combine, uncertainty=settings.ensemble.uncertainty)
    return Fitted(ensemble, measure(ensemble, [c for question in held or train for c in question]))


def cross_validate(
    begin: Begin,
    comparisons: Sequence[Comparison],
    settings: Reward,
    run: Run,
    *,
    seeds: Seeds,
    samples: Sequence[Sample] = (),
    folds: int = 5,
    by: Literal["prompt", "annotator"] = "prompt",
) -> RewardReport:
    """How good reward models are on comparisons of prompts, or of people, that they did not learn from.

    Each fold is a run of its own; the report is over all comparisons, each scored once, by the model that has not seen its part
    (InstructGPT, section 4.1, leaves out groups of labelers). Raises DataError with fewer prompts, or people, than folds.
    """
    kept = sound(comparisons, run.say).kept
    names = [c.prompt.id if by == "prompt" else c.annotator for c in kept]
    distinct = list(dict.fromkeys(names))
    if folds < 2 or len(distinct) < folds:
        raise DataError(
            f"{len(distinct)} {'prompts' if by == 'prompt' else 'people'} cannot be parted into {folds} folds of two or more"
        )
    fold = {distinct[i]: place % folds for place, i in enumerate(seeds.permutation(len(distinct), "folds", by))}
    alone = dataclasses.replace(settings, holdout=0.0, ensemble=Members())
    left, right, told = [], [], []
    for k in range(folds):
        learned = [c for c, name in zip(kept, names, strict=True) if fold[name] != k]
        held = [c for c, name in zip(kept, names, strict=True) if fold[name] == k]
        own = seeds.child("fold", k)
        with Run.open(run.folder / f"fold{k}", kind="reward", settings=alone, quiet=run.quiet) as part:
            if not part.finished:
                model = begin(own)
                fit_reward(model, learned, alone, part, seeds=own, samples=samples)
                prompts = [c.prompt for c in held]
                sides = {side: score(model, prompts, [getattr(c, side) for c in held]) for side in ("left", "right")}
                part.finish({"comparisons": len(learned), **sides})
            left += part.result["left"]
            right += part.result["right"]
            told += held
        run.obey(where="between two folds")
    return judge(left, right, told)


def drawn(questions: Sequence[Question], seeds: Seeds) -> list[Question]:
    """As many questions drawn with replacement (Efron's bootstrap); one drawn twice weighs twice as much."""
    times = [0] * len(questions)
    for i in seeds.numpy("bootstrap").integers(len(questions), size=len(questions)):
        times[i] += 1
    return [
        [dataclasses.replace(c, weight=c.weight * n) for c in question] for question, n in zip(questions, times, strict=True) if n
    ]
