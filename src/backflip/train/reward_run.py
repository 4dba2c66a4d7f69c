"""Everything `backflip reward` does with comparisons: what a model starts as, what is fitted, and what is said of it.

RUN/model/         the reward model, or the ensemble
RUN/pretraining/   the run that learned from other comparisons first
RUN/sentinel/      the run of the second model, of comparisons on other prompts
RUN/quality.json   every figure of the report
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from backflip.errors import ConfigError
from backflip.policies.hub import kind_of_model
from backflip.policies.language import LanguagePolicy
from backflip.policies.loading import load_policy
from backflip.policies.scratch import redrawn
from backflip.records import Comparison, Prompt, Sample
from backflip.rewards.learned import RewardModel
from backflip.rollout.local import generate_samples
from backflip.runs import Run
from backflip.runs.atomic import once, storage, write_atomic
from backflip.runs.report import write_report
from backflip.seeds import Seeds
from backflip.settings import Members, Reward, Sampling
from backflip.train.comparisons import binarized, for_sentinel, sound, split_questions
from backflip.train.fitting import Begin, cross_validate, fit
from backflip.train.objectives import voiceless
from backflip.train.quality import examine, log_ratios
from backflip.train.reward_page import reward_page

Result = dict[str, Any]


class Pretraining(NamedTuple):
    """Comparisons to learn from before the others, as they are ("ranked") or `binarized`, and how often."""

    comparisons: Sequence[Comparison]
    form: Literal["ranked", "binary"] = "ranked"
    epochs: float = 1.0


def run_reward(
    policy: LanguagePolicy | None,
    comparisons: Sequence[Comparison],
    settings: Reward,
    sampling: Sampling,
    run: Run,
    seeds: Seeds,
    *,
    begin: Begin | None = None,
    demonstrations: Sequence[tuple[Prompt, str]] = (),
    pretraining: Pretraining | None = None,
    sentinel: float = 0.0,
    folds: int = 0,
    fold_by: Literal["prompt", "annotator"] = "prompt",
    improved: LanguagePolicy | None = None,
) -> Result:
    """Fit a reward model, or an ensemble, and write it to RUN/model, and how good it is to RUN/quality.json and the report.

    What it learned from first stands in RUN/pretraining, the model of the comparisons on a share of the prompts in RUN/sentinel.

    It starts as `begin` says (default: with the policy's body). Scores are scaled on samples of `policy` (None: on the compared
    completions). With a policy that was `improved` since, accuracy is also told by how much likelier texts became on the way.
    """
    if begin is None:
        assert policy is not None
        begin = body_of(policy, settings)
    learned = [c for c in comparisons if not (sentinel and for_sentinel(c.prompt, sentinel, seeds))]
    others = [c for c in comparisons if sentinel and for_sentinel(c.prompt, sentinel, seeds)]
    if sentinel and not (learned and others):
        raise ConfigError(f"a sentinel with {sentinel:.0%} of the prompts leaves one side without comparisons; give more, or 0.5")
    samples = ruler(policy, learned, settings, sampling, seeds) if policy is not None and learned else []
    if pretraining is not None:
        begin = _pretrained(begin, pretraining, settings, run, seeds)
    found: Result = {}
    if folds:
        report = cross_validate(begin, learned, settings, run, seeds=seeds, samples=samples, folds=folds, by=fold_by)
        found["cross_validation"] = report._asdict() | {"folds": folds, "by": fold_by}
    if others:
        found["sentinel"] = _subfit("sentinel", begin, others, settings, run, seeds.child("sentinel"), samples, demonstrations)
    fitted = fit(begin, learned, settings, run, seeds=seeds, samples=samples, demonstrations=demonstrations)
    once(run.folder / "model", fitted.model.save)
    kept = sound(learned)
    train, held = ([c for question in side for c in question] for side in split_questions(kept.kept, settings.holdout, seeds))
    shown = held or train
    distances = None if improved is None or policy is None else log_ratios(improved, policy, shown)
    quality = examine(fitted.model, shown, learned_from=train, distances=distances)
    left_out = kept.left_out | voiceless(kept.kept, settings)
    told = {"comparisons": len(learned), "held_out": bool(held)} | ({"left_out": left_out} if left_out else {})
    write_atomic(run.folder / "quality.json", json.dumps(quality.to_json(), indent=1, ensure_ascii=False) + "\n")
    write_report(run.folder, reward_page(quality, run.folder, told))
    return fitted.report._asdict() | told | quality.headlines() | found


def beginning(path: str, settings: Reward, *, scratch: bool, seeds: Seeds) -> tuple[LanguagePolicy | None, Begin]:
    """What a reward model starts as, by folder or name, and the policy whose samples scale it where there is one.

    A language model gives its body; an encoder its body; a reward model goes on as it is. Raises ModelError, and ConfigError
    for an encoder or a reward model from `scratch`.
    """
    kind = kind_of_model(path)
    if kind == "a language model":
        policy = load_policy(path)
        return policy, body_of(redrawn(policy, seeds=seeds) if scratch else policy, settings)
    if scratch:
        raise ConfigError(f"{path} is {kind}; only a language model's shape can start from scratch")
    if kind == "an encoder":
        return None, lambda own: RewardModel.from_encoder(path, seeds=own, max_length=settings.max_length)
    return None, lambda own: RewardModel.load(path)


def body_of(policy: LanguagePolicy, settings: Reward) -> Begin:
    """A reward model with the policy's body and a fresh head."""

    def begin(seeds: Seeds) -> RewardModel:
        with storage("the policy's weights cannot be copied by way of the temporary folder"):
            return RewardModel.from_policy(
                policy, seeds=seeds, head_init=settings.head_init, score_at=settings.score_at, max_length=settings.max_length
            )

    return begin


def _pretrained(begin: Begin, first: Pretraining, settings: Reward, run: Run, seeds: Seeds) -> Begin:
    """The model of the comparisons that are learned from first, kept in RUN/pretraining."""
    comparisons = binarized(first.comparisons) if first.form == "binary" else first.comparisons
    plain = dataclasses.replace(settings, epochs=first.epochs, ensemble=Members())
    _subfit("pretraining", begin, comparisons, plain, run, seeds.child("pretraining"))
    return lambda own: RewardModel.load(run.folder / "pretraining" / "model")


def _subfit(
    name: str, begin: Begin, comparisons: Sequence[Comparison], settings: Reward, run: Run, seeds: Seeds,
    samples: Sequence[Sample] = (), demonstrations: Sequence[tuple[Prompt, str]] = (),
) -> Result:  # fmt: skip
    """Fit a model in RUN/name, a run of its own; its report."""
    with Run.open(run.folder / name, kind="reward", settings=settings, quiet=run.quiet) as part:
        if not part.finished:
            fitted = fit(begin, comparisons, settings, part, seeds=seeds, samples=samples, demonstrations=demonstrations)
            once(part.folder / "model", fitted.model.save)
            part.finish(fitted.report._asdict() | {"comparisons": len(comparisons)})
        return part.result


def ruler(
    policy: LanguagePolicy, comparisons: Sequence[Comparison], settings: Reward, sampling: Sampling, seeds: Seeds
) -> list[Sample]:
    """The policy's samples on which reward scores are scaled to mean 0 and standard deviation 1.

    Prompts that leave no room for a completion are passed over; with none left the compared texts serve instead.
    """
    if not (settings.normalize_before or settings.normalize_after):
        return []
    distinct = list({c.prompt.id: c.prompt for c in comparisons}.values())
    order = seeds.permutation(len(distinct), "ruler")
    room = policy.context - sampling.max_new_tokens
    fitting = [p for i in order[: settings.normalization_samples] if len(policy.encode(p := distinct[i])) <= room]
    if not fitting:
        return []
    prompts = [fitting[i % len(fitting)] for i in range(settings.normalization_samples)]
    groups = generate_samples(policy, prompts, n=1, seeds=seeds.child("ruler"), settings=sampling)
    return [group[0] for group in groups]
