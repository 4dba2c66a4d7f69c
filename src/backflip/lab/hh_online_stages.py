"""The work of `hh-online`: preference models of two halves, the runs against them, and two arms that ask people.

SEED/policyW/   SEED/bodyW/   SEED/comparisons.json   SEED/modelW-train/   SEED/modelW-test/
SEED/runW-M/    a policy of width W against the train model of width M
SEED/online/    SEED/static/    loops, as `rounds/loop.py` has them    SEED/met.json    how their last policies compare
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from backflip.feedback.labelers import Labeler, opinions
from backflip.feedback.queries import pair_queries
from backflip.lab.hh_online_figures import calibration_error, elo
from backflip.lab.many_rounds_settings import Asking
from backflip.lab.many_rounds_stages import people
from backflip.lab.stages import kept
from backflip.maths.ratings import win_rate
from backflip.policies.loading import load_policy
from backflip.records import Query
from backflip.rewards.ensemble import load_reward
from backflip.rewards.protocol import score
from backflip.rollout.local import generate_samples
from backflip.rounds.loop import FIRST
from backflip.seeds import Seeds
from backflip.worlds.reviews import Reviews

FRESH = "fresh"


def met(path: Path, online: Path, static: Path, settings: Asking, seeds: Seeds) -> dict[str, Any]:
    """How the last policies of two loops compare, before people whom neither asked; kept in `path`.

    Both answer the arena's prompts, gold and people without noise judge; then two texts by one policy are judged by people as
    unsure as those who taught, and each loop's last reward model says how sure it is: of texts of the first policy, and of the
    last ones, whose scores are high.
    """

    def work() -> dict[str, Any]:
        world = Reviews()
        prompts = world.prompts(settings.loop.arena_prompts, seeds.child("arena"), "test")
        rounds = {"online": (online, f"round{settings.loop.rounds}"), "static": (static, "round1")}
        places = {"first": online / "generations" / FIRST} | {a: f / "generations" / r for a, (f, r) in rounds.items()}
        written = {
            name: generate_samples(
                load_policy(place, name=name), prompts, n=2, seeds=seeds.child("met", name), settings=settings.loop.sampling
            )
            for name, place in places.items()
        }
        groups = [[a[0], b[0]] for a, b in zip(written["online"], written["static"], strict=True)]
        asked = pair_queries(groups, seeds=seeds.child("met"), purpose=FRESH)
        sure = people(settings, seeds.child("fresh annotators"), 0.0, 0.0)
        wins = [1.0 - p if q.policies[0] == "static" else p for q, p in zip(asked, answers(sure, asked), strict=True)]
        rate = win_rate(wins, [q.prompt.id for q in asked])
        found: dict[str, Any] = {
            "wins": rate._asdict(),
            "elo": elo(rate.mean, rate.n),
            "gold": {name: fmean([world.gold(s.prompt, s.text) for g in rows for s in g]) for name, rows in written.items()},
        }
        unsure = people(settings, seeds.child("fresh annotators"), settings.noise, settings.temperature)
        for scores, names in (("low", ["first"]), ("high", ["online", "static"])):
            pairs = pair_queries([g for n in names for g in written[n]], seeds=seeds.child("sure", scores), purpose=FRESH)
            told = answers(unsure, pairs)
            found[scores] = {
                arm: _error(folder / last / "reward" / "model", pairs, told) for arm, (folder, last) in rounds.items()
            }
        return found

    return kept(path, work)


def answers(labeler: Labeler, asked: Sequence[Query]) -> list[float]:
    """How far each left text won, one half where nobody said."""
    return [0.5 if far is None else far for far in opinions(labeler, asked)]


def _error(folder: Path, pairs: Sequence[Query], told: Sequence[float]) -> float:
    model, prompts = load_reward(folder), [q.prompt for q in pairs]
    left, right = (score(model, prompts, [q.completions[side] for q in pairs]) for side in (0, 1))
    return calibration_error([a - b for a, b in zip(left, right, strict=True)], told)
