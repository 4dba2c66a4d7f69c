"""Fit one reward model, or several as an ensemble, each member a run of its own in the run's folder.

RUN/member0/ …     the runs of an ensemble's members
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

from backflip.records import Comparison, Prompt, Sample
from backflip.rewards.ensemble import Ensemble, Learned
from backflip.rewards.learned import RewardModel
from backflip.runs import Run
from backflip.runs.atomic import once
from backflip.seeds import Seeds
from backflip.settings import Members, Reward
from backflip.train.comparisons import Question, RewardReport, sound, split_questions
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


def drawn(questions: Sequence[Question], seeds: Seeds) -> list[Question]:
    """As many questions drawn with replacement (Efron's bootstrap); one drawn twice weighs twice as much."""
    times = [0] * len(questions)
    for i in seeds.numpy("bootstrap").integers(len(questions), size=len(questions)):
        times[i] += 1
    return [
        [dataclasses.replace(c, weight=c.weight * n) for c in question] for question, n in zip(questions, times, strict=True) if n
    ]
