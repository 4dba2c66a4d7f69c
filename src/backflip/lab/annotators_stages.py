"""The work of `annotators`.

SEED/base/              pretraining                     SEED/pooled/   one reward model of everybody's comparisons
SEED/soft/, hard/       reward models of shared questions
SEED/*.json             what was measured, each part once
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import backflip as bf
from backflip.feedback.aggregate import Method, aggregate
from backflip.feedback.asking import RULES, Candidate, Rule, choose, newness, values
from backflip.feedback.labelers import Oracle
from backflip.lab.annotators_people import (
    GROUPS,
    Floats,
    Person,
    answered,
    options,
    pairs,
    true_gaps,
    utilities,
)
from backflip.lab.annotators_settings import Settings
from backflip.maths.logistic import newton, sigmoid
from backflip.maths.soft_labels import soft_fit
from backflip.maths.welfare import equal_share, jury, median_voter, seats
from backflip.policies.loading import load_policy
from backflip.records import Comparison, Query, Verdict
from backflip.rewards.learned import RewardModel
from backflip.seeds import Seeds
from backflip.train.personal import PersonalRewards, fit_personal, gaps, hidden_states
from backflip.worlds.reviews import Reviews


def reward(folder: Path, start: Path, comparisons: list[Comparison], settings: Settings, seed: int, quiet: bool) -> RewardModel:
    """Fit a reward model from the base model, or read the one that is there."""
    numbers = {field.name: getattr(settings.reward, field.name) for field in dataclasses.fields(settings.reward)}
    model = bf.fit_reward(load_policy(start), comparisons, folder, seed=seed, quiet=quiet, **numbers)
    assert isinstance(model, RewardModel), "an ensemble was not asked for"
    return model


def asked_of_each(persons: Sequence[Person], settings: Settings, seeds: Seeds) -> list[Comparison]:
    """Everybody's answers to questions of their own."""
    found: list[Comparison] = []
    for person in persons:
        queries = pairs(settings.each, seeds.child("questions", person.name))
        found += answered(person, queries, settings, seeds.child("answers"))
    return found


# ------------------------------------------------------------------------------------------------- one model or many


def whose(
    pooled: RewardModel, comparisons: list[Comparison], persons: Sequence[Person], settings: Settings, seeds: Seeds
) -> tuple[dict[str, Any], PersonalRewards]:
    """Accuracy for each group of the pooled model and of heads of each person, pooled in part or not at all; and the heads."""
    queries = pairs(settings.test_pairs, seeds.child("test"), "test")
    truth_NJ = true_gaps(persons, queries)
    prompts = [query.prompt for query in queries]
    left, right = ([query.completions[k] for query in queries] for k in (0, 1))
    gap_N = np.array(pooled(prompts, left)) - np.array(pooled(prompts, right))
    by_group = [dataclasses.replace(c, annotator=c.annotator.split("-")[0]) for c in comparisons]
    measured = gaps(pooled, comparisons)
    partly = fit_personal(pooled, comparisons, measured=measured)
    fits = {
        "own head, pooled in part": partly,
        "own head, not pooled": fit_personal(pooled, comparisons, spread=10.0, measured=measured),
        "head of the group, groups known": fit_personal(pooled, by_group, measured=measured),
    }
    found = {"one model of all": shares(np.repeat(gap_N[:, None], len(persons), axis=1), truth_NJ, persons)}
    for name, fit in fits.items():
        gap = fit.scores(prompts, left) - fit.scores(prompts, right)
        columns = [fit.names.index(p.name if p.name in fit.names else p.name.split("-")[0]) for p in persons]
        found[name] = shares(gap[:, columns], truth_NJ, persons)
    return {"accuracy": found, "spread": partly.fit.spread, "n": len(comparisons)}, partly


def shares(gap_NJ: Floats, truth_NJ: Floats, persons: Sequence[Person]) -> dict[str, float]:
    """How often the sign is right, mean over all people and over those of each group; no difference is half right."""
    right_J = (0.5 + 0.5 * np.sign(gap_NJ) * np.sign(truth_NJ)).mean(axis=0)
    group_J = np.array([person.group for person in persons])
    groups = {name: float(right_J[group_J == g].mean()) for g, name in enumerate(GROUPS)}
    return {"everybody": float(right_J.mean()), **groups}


def juries(heads: PersonalRewards, persons: Sequence[Person], settings: Settings, seeds: Seeds) -> dict[str, Any]:
    """How many decisions change with the composition of a jury of twelve, by predicted jurors and by the true ones."""
    queries = pairs(settings.test_pairs, seeds.child("test"), "test")
    prompts = [query.prompt for query in queries]
    left, right = (heads.scores(prompts, [query.completions[k] for query in queries]) for k in (0, 1))
    columns = [heads.names.index(person.name) for person in persons]
    beliefs = {"predicted": sigmoid((left - right)[:, columns])}
    beliefs["true"] = sigmoid(true_gaps(persons, queries) / max(settings.choice_temperature, 1e-3))
    group_J = [person.group for person in persons]
    shares_G = [share for share, _ in GROUPS.values()]
    compositions = {"by numbers": seats(shares_G).tolist(), "equal": [4, 4, 4]}
    compositions |= {f"{name} alone": [12 * int(g == i) for i in range(len(GROUPS))] for g, name in enumerate(GROUPS)}
    found: dict[str, Any] = {"seats": compositions}
    for kind, belief_NJ in beliefs.items():
        above = {
            name: jury(belief_NJ, group_J, each, rng=seeds.numpy("jury", name), draws=25).above_N > 0.5
            for name, each in compositions.items()
        }
        found[kind] = {name: float((each != above["by numbers"]).mean()) for name, each in above.items()}
    return found


def consensus(heads: PersonalRewards, persons: Sequence[Person], settings: Settings, seeds: Seeds) -> dict[str, Any]:
    """One text of several for everybody, by rules of welfare over predicted contentment: how content each group truly is.

    Contentment is the share of the other texts that a person truly likes less. "plain left out" asks those people's heads too
    little: they are not among the voters.
    """
    rows = options(settings.prompts, settings.options, seeds.child("consensus"), "test")
    flat = [(prompt, text) for prompt, texts in rows for text in texts]
    columns = [heads.names.index(person.name) for person in persons]
    shape = (len(rows), settings.options, len(persons))
    score = heads.scores([p for p, _ in flat], [t for _, t in flat])[:, columns].reshape(shape)
    truth = utilities(persons, flat).reshape(shape)
    content = (truth[:, :, None, :] > truth[:, None, :, :]).sum(axis=2) / (settings.options - 1)
    belief = sigmoid(score - score.mean(axis=1, keepdims=True))
    group_J = np.array([person.group for person in persons])
    rules: dict[str, Callable[[Floats], Floats]] = {
        "mean (utilitarian)": lambda u: equal_share(u, 0), "Nash": lambda u: equal_share(u, 1),
        "worst off (Rawls)": lambda u: equal_share(u, math.inf), "median voter": median_voter,
        "mean, plain left out": lambda u: equal_share(u[:, group_J != len(GROUPS) - 1], 0),
    }  # fmt: skip
    found = {}
    for name, rule in rules.items():
        chosen = [int(rule(each).argmax()) for each in belief]
        got_J = content[np.arange(len(rows)), chosen].mean(axis=0)
        groups = {group: float(got_J[group_J == g].mean()) for g, group in enumerate(GROUPS)}
        found[name] = {"everybody": float(got_J.mean()), **groups, "worst group": min(groups.values())}
    return found


# ------------------------------------------------------------------------------------------------- soft and hard labels


def shared_answers(persons: Sequence[Person], settings: Settings, seeds: Seeds) -> list[tuple[Query, float]]:
    """Questions that several people answered, and the share of them who said left."""
    rng, found = seeds.numpy("who"), []
    for query in pairs(settings.shared_questions, seeds.child("shared")):
        who = rng.choice(len(persons), min(settings.answers_each, len(persons)), replace=False)
        said = [answered(persons[j], [query], settings, seeds.child("shared answers"))[0].p_left for j in who.tolist()]
        found.append((query, float(np.mean(said))))
    return found


def labels(shared: Sequence[tuple[Query, float]], kind: str) -> list[Comparison]:
    """The same answers as one comparison for each question: their distribution, or what most said."""
    hard = {True: 1.0, False: 0.0}
    return [_comparison(q, p if kind == "soft" or p == 0.5 else hard[p > 0.5]) for q, p in shared]


def _comparison(query: Query, p_left: float) -> Comparison:
    return Comparison(query.prompt, query.completions[0], query.completions[1], p_left=p_left, query_id=query.id)


def soft_or_hard(models: dict[str, RewardModel], persons: Sequence[Person], settings: Settings, seeds: Seeds) -> dict[str, Any]:
    """Loss, divergence and accuracy of models of soft and of hard labels against what all people would say."""
    queries = pairs(settings.test_pairs, seeds.child("test"), "test")
    by_judging = sigmoid(true_gaps(persons, queries) / max(settings.choice_temperature, 1e-3))
    p_N = ((1 - settings.noise) * by_judging + settings.noise / 2).mean(axis=1)
    prompts = [query.prompt for query in queries]
    found = {}
    for kind, model in models.items():
        left, right = (np.array(model(prompts, [query.completions[k] for query in queries])) for k in (0, 1))
        q_N = sigmoid(left - right)
        found[kind] = soft_fit(np.stack([p_N, 1 - p_N], axis=1), np.stack([q_N, 1 - q_N], axis=1))._asdict()
    return found


# ------------------------------------------------------------------------------------------------- aggregation


def crowd(settings: Settings, seeds: Seeds) -> dict[str, Any]:
    """Labelers who all judge by gold and err as often as each was given to: how well that is found again, and the answers."""
    world, rng = Reviews(), seeds.numpy("crowd")
    queries = pairs(settings.crowd_questions, seeds.child("crowd"))
    known = {query.id: query for query in queries}
    errors = {f"labeler {j:02d}": float(e) for j, e in enumerate(rng.uniform(0.0, 0.95, settings.crowd))}
    oracles = {
        name: Oracle(world.gold, seeds=seeds.child("crowd answers"), name=name, noise=error, temperature=0.0)
        for name, error in errors.items()
    }
    names, verdicts = sorted(errors), list[Verdict]()
    for query in queries:
        for name in rng.choice(names, min(settings.crowd_answers, len(names)), replace=False).tolist():
            verdicts.append(oracles[name].answer(query))
    gold = {
        query.id: world.gold(query.prompt, query.completions[0]) - world.gold(query.prompt, query.completions[1])
        for query in queries
    }
    found: dict[str, Any] = {"answers": len(verdicts), "methods": {}}
    methods: tuple[Method, ...] = ("majority", "one-coin", "dawid-skene", "noisy-bt")
    for method in methods:
        said = aggregate(known, verdicts, method)
        decided = [c for c in said.comparisons if gold[c.query_id] != 0]
        right = [0.5 + 0.5 * np.sign(c.p_left - 0.5) * np.sign(gold[c.query_id]) for c in decided]
        r = None
        if said.reliability:
            there = [name for name in names if name in said.reliability]
            r = float(np.corrcoef([1 - errors[n] for n in there], [said.reliability[n] for n in there])[0, 1])
        found["methods"][method] = {"accuracy": float(np.mean(right)), "r": r}
    return found


# ------------------------------------------------------------------------------------------------- what to ask


def asking(body: RewardModel, settings: Settings, seeds: Seeds) -> dict[str, Any]:
    """Accuracy after so many questions by each rule, mean over repeats, of a head on the base model's mean hidden state."""
    world = Reviews()
    queries, test = pairs(settings.pool, seeds.child("pool")), pairs(settings.test_pairs, seeds.child("test"), "test")
    everything = [_comparison(query, 0.5) for query in (*queries, *test)]
    gap_ND, scale_D = gaps(body, everything, over="mean")
    x = gap_ND / scale_D
    texts = hidden_states(body, [q.prompt for q in queries], [q.completions[0] for q in queries], over="mean") / scale_D
    gold = np.array([world.gold(q.prompt, q.completions[0]) - world.gold(q.prompt, q.completions[1]) for q in (*queries, *test)])
    pool = len(queries)
    candidates = [Candidate(i, "left", "right") for i in range(pool)]
    ridge = np.full(x.shape[1], 1.0)
    found: dict[str, Any] = {rule: [] for rule in RULES}
    for repeat in range(settings.ask_repeats):
        rng = seeds.numpy("asking", repeat)
        p = (1 - settings.noise) * sigmoid(gold[:pool] / max(settings.choice_temperature, 1e-3)) + settings.noise / 2
        said = (rng.random(pool) < p).astype(np.float64)
        for rule in RULES:
            curve = _curve(rule, x, said, gold, texts, candidates, ridge, settings, seeds.child("asking", repeat))
            found[rule].append(curve)
    steps = [settings.ask_each * (r + 1) for r in range(settings.ask_rounds)]
    return {"questions": steps, "accuracy": {rule: np.mean(curves, axis=0).tolist() for rule, curves in found.items()}}


def _curve(
    rule: Rule, x: Floats, said: Floats, gold: Floats, texts: Floats, candidates: list[Candidate], ridge: Floats,
    settings: Settings, seeds: Seeds,
) -> list[float]:  # fmt: skip
    """Ask, fit, measure, and again; the first questions are random for every rule."""
    pool, asked, curve = len(candidates), list[int](), list[float]()
    heads = np.zeros((settings.ensemble, x.shape[1]))
    rng = seeds.numpy("bootstrap")
    for step in range(settings.ask_rounds):
        open_to = np.setdiff1d(np.arange(pool), asked)
        gap_KC = heads @ x[open_to].T
        now: Rule = rule if asked else "random"
        new = newness(texts[open_to], texts[asked]) if now == "explore" else None
        worth = values(now, gap_KC, np.zeros_like(gap_KC), newness_C=new)
        chosen, _ = choose(
            [candidates[i] for i in open_to.tolist()], worth, budget=settings.ask_each, seeds=seeds.child("round", step),
            random_share=settings.random_share,
        )  # fmt: skip
        asked += [int(open_to[each.index]) for each in chosen]
        beta, _ = newton(x[asked], said[asked], np.ones(len(asked)), ridge)
        # The Bayesian bootstrap (Rubin 1981): members differ in what each answer weighs.
        heads = np.stack([newton(x[asked], said[asked], rng.exponential(size=len(asked)), ridge, beta)[0] for _ in heads])
        right = 0.5 + 0.5 * np.sign(x[pool:] @ beta) * np.sign(gold[pool:])
        curve.append(float(right.mean()))
    return curve
