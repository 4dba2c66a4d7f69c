"""Whose taste is it? Three groups of people, six, three and one tenth of all, with opposed tastes in the world of reviews.

One reward model of everybody's comparisons beside heads of each person on the same body, pooled in part; labels that keep how
people are divided beside what most said; who errs how often, found from the answers alone; juries and rules of welfare by
predicted people; and which questions to ask: how many comparisons each rule needs for the accuracy that random ones end with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backflip.lab.annotators_figures import gain, shares_needed
from backflip.lab.annotators_report import report, tables
from backflip.lab.annotators_settings import Settings
from backflip.lab.clock import Clock
from backflip.lab.outcome import Line, at_least, at_most
from backflip.lab.seeds import every_seed, told
from backflip.seeds import Seeds
from backflip.settings import Tiny

__all__ = ["QUICK", "TITLE", "Settings", "judge", "run"]

TITLE = "Three groups of people: one reward model or many, soft labels, who is careless, and what to ask next."

QUICK = dataclasses.replace(
    Settings(), seeds=1, documents=200, people=10, each=12, test_pairs=30, shared_questions=24, answers_each=4, crowd=8,
    crowd_questions=60, crowd_answers=4, pool=60, ask_each=10, ask_rounds=3, ask_repeats=1, ensemble=3, options=3, prompts=6,
    tiny=Tiny(vocabulary=320, hidden_size=16, layers=1, heads=2, context=128),
)  # fmt: skip
"""Everything once, in seconds; it shows that the parts work, and nothing else."""


def run(settings: Settings, folder: Path, quiet: bool) -> bool:
    """Run every seed, or what is missing of it, and tell it; whether all bars were met."""
    seeds = every_seed(settings, folder, quiet, one)
    return told(settings, folder, seeds, judge(seeds), report, tables=tables(seeds))


def one(seed: int, settings: Settings, folder: Path, quiet: bool) -> dict[str, Any]:
    """The figures of one seed."""
    from backflip.lab import annotators_stages as stages
    from backflip.lab.annotators_people import people
    from backflip.lab.reviews_base import reviews_base
    from backflip.lab.stages import kept
    from backflip.policies.loading import load_policy
    from backflip.rewards.learned import RewardModel

    seeds, clock = Seeds(seed), Clock(folder / "clock.json")
    persons = people(settings, seeds.child("people"))
    with clock.running("pretraining"):
        base = reviews_base(folder / "base", settings, seeds.child("base"), quiet)
    with clock.running("reward models"):
        comparisons = stages.asked_of_each(persons, settings, seeds)
        pooled = stages.reward(folder / "pooled", base, comparisons, settings, seed, quiet)
        shared = stages.shared_answers(persons, settings, seeds)
        # Scaled to a standard deviation of 1, a model that knows how divided people are would claim to be sure.
        unscaled = dataclasses.replace(settings, reward=dataclasses.replace(settings.reward, normalize_after=False))
        models = {
            kind: stages.reward(folder / kind, base, stages.labels(shared, kind), unscaled, seed, quiet)
            for kind in ("soft", "hard")
        }
    with clock.running("people"):
        whose, heads = stages.whose(pooled, comparisons, persons, settings, seeds)
        found = {
            "seed": seed,
            "whose": whose,
            "juries": stages.juries(heads, persons, settings, seeds),
            "consensus": stages.consensus(heads, persons, settings, seeds),
            "labels": stages.soft_or_hard(models, persons, settings, seeds),
            "crowd": stages.crowd(settings, seeds),
        }
    with clock.running("asking"):
        body = RewardModel.from_policy(load_policy(base), seeds=seeds)
        found["asking"] = kept(folder / "asking.json", lambda: stages.asking(body, settings, seeds))
    found["seconds"] = clock.seconds
    return found


def judge(seeds: Sequence[dict[str, Any]]) -> list[Line]:
    """The bars."""
    overall, smallest = ([gain(s, group) for s in seeds] for group in ("everybody", "plain"))
    losses = [s["labels"]["soft"]["nll"] - s["labels"]["hard"]["nll"] for s in seeds]
    best = min((share for share in shares_needed(seeds).values() if share is not None), default=float("inf"))
    return [
        at_least("points gained by everybody with heads of their own, mean", sum(overall) / len(overall), 5),
        at_least("points gained by the smallest group, mean", sum(smallest) / len(smallest), 15),
        Line("log loss of soft labels less that of hard ones, worst seed", max(losses), "< 0", max(losses) < 0),
        at_least(
            "correlation of reliabilities, one coin, worst seed", min(s["crowd"]["methods"]["one-coin"]["r"] for s in seeds), 0.9
        ),
        at_most("share of random's comparisons that the best rule needs", best, 0.7),
    ]
