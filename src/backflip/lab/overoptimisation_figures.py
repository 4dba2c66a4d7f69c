"""What is read off best of n and PPO: gold against √KL, Gao's forms, what the penalty does, and how often a proxy is right.

Scores are in standard deviations of the first policy's samples, gold and every proxy alike, so that 0 is where it began.

Shapes: P prompts, N samples of each, K members of an ensemble.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from backflip.lab.guard_recorder import Seen
from backflip.lab.many_tries import doublings
from backflip.lab.overoptimisation_settings import BANDS
from backflip.maths.overoptimisation import BON, RL, Floats, fit
from backflip.maths.ratings import best_of_n, best_of_n_kl
from backflip.rewards.ensemble import Combine, combined

Curve = dict[str, list[float]]
RULES: tuple[Combine, ...] = ("mean", "worst", "uncertainty")


class Unit(NamedTuple):
    """Mean and standard deviation of a score on the first policy's samples."""

    mean: float
    std: float

    @classmethod
    def of(cls, scores: Floats) -> Unit:
        """That of the scores given; those that do not vary keep their unit."""
        std = float(scores.std())
        return cls(float(scores.mean()), std if std > 1e-9 else 1.0)

    def __call__(self, scores: Floats | Sequence[float]) -> Floats:
        """Scores in this unit."""
        return (np.asarray(scores, dtype=np.float64) - self.mean) / self.std


def in_own_units(scores_KPN: Floats) -> Floats:
    """Every member's scores in a unit of its own, for no member's scale may decide."""
    return np.stack([Unit.of(scores_PN)(scores_PN) for scores_PN in scores_KPN])


def best_of(proxy_PN: Floats, gold_PN: Floats) -> Curve:
    """Gold and proxy of the best of n by proxy, n = 1, 2, 4, … N, mean over prompts, and √KL there. Both in the unit given."""
    ns = doublings(proxy_PN.shape[1])

    def curve(worth_PN: Floats) -> list[float]:
        rows = list(zip(proxy_PN, worth_PN, strict=True))
        return [float(np.mean([best_of_n(proxy_N, worth_N, n) for proxy_N, worth_N in rows])) for n in ns]

    return {
        "n": [float(n) for n in ns], "distance": [math.sqrt(best_of_n_kl(n)) for n in ns], "gold": curve(gold_PN),
        "proxy": curve(proxy_PN),
    }  # fmt: skip


def told_by_form(curve: Mapping[str, Sequence[float]], fitted: int) -> dict[str, float]:
    """Gao's form of best of n: fitted to the whole curve; and to n ≤ `fitted` only, with what it then promises too much at the
    largest n. Distances are √nats."""
    d, gold = curve["distance"], curve["gold"]
    near = [i for i, n in enumerate(curve["n"]) if n <= fitted]
    whole, part = fit(BON, d, gold), fit(BON, [d[i] for i in near], [gold[i] for i in near])
    return {
        "alpha": whole.alpha, "beta": whole.beta, "r2": whole.r2, "alpha near": part.alpha, "beta near": part.beta,
        "r2 near": part.r2, "miss": float(part.at(d[-1])) - gold[-1],
    }  # fmt: skip


def under_rules(scores_KPN: Floats, gold_PN: Floats, uncertainty: float) -> dict[str, list[float]]:
    """Gold of the best of n by an ensemble under every rule, and by one member alone, the mean over members.

    Members come each in its own unit.
    """
    alone = [best_of(scores_PN, gold_PN)["gold"] for scores_PN in scores_KPN]
    table = torch.from_numpy(scores_KPN.reshape(len(scores_KPN), -1))
    found = {"one member": [sum(column) / len(column) for column in zip(*alone, strict=True)]}
    for rule in RULES:
        whole_PN = combined(table, rule, uncertainty).numpy().reshape(gold_PN.shape)
        found[rule] = best_of(whole_PN, gold_PN)["gold"]
    return found


def looked(seen: Sequence[Seen], gold: Unit, proxy: Unit) -> Curve:
    """A run look by look: steps, KL in nats a sequence, its root, gold and proxy, and of the pairs of texts for one prompt that
    differ in gold how many there are and how many the proxy has right."""
    rows = []
    for s in seen:
        kl = float(np.mean(s.look.kl))
        right, pairs = told_apart(s)
        rows.append(
            {
                "step": float(s.look.step), "kl": kl, "distance": math.sqrt(max(kl, 0.0)), "gold": float(gold(s.gold).mean()),
                "proxy": float(proxy(s.look.proxy).mean()), "right": right, "pairs": float(pairs),
            }
        )  # fmt: skip
    return {name: [row[name] for row in rows] for name in rows[0]}


def told_apart(seen: Seen) -> tuple[float, int]:
    """Of all pairs of a look's texts for one prompt that differ in gold: how many the proxy puts in gold's order, a tie counting
    half, and how many there are."""
    groups: dict[str, list[int]] = {}
    for i, prompt in enumerate(seen.look.prompts):
        groups.setdefault(prompt, []).append(i)
    right, pairs = 0.0, 0
    for places in groups.values():
        for i, j in itertools.combinations(places, 2):
            gold, proxy = seen.gold[i] - seen.gold[j], seen.look.proxy[i] - seen.look.proxy[j]
            if gold != 0:
                pairs += 1
                right += 0.5 if proxy == 0 else float((gold > 0) == (proxy > 0))
    return right, pairs


def by_distance(curves: Sequence[Mapping[str, Sequence[float]]]) -> list[float | None]:
    """How often the proxy is right in each of the bands of KL, over all pairs of all looks in it; None without pairs."""
    right, pairs = [0.0] * len(BANDS), [0.0] * len(BANDS)
    for curve in curves:
        for kl, hits, n in zip(curve["kl"], curve["right"], curve["pairs"], strict=True):
            band = max((i for i, edge in enumerate(BANDS) if kl >= edge), default=0)
            right[band] += hits
            pairs[band] += n
    return [hits / n if n else None for hits, n in zip(right, pairs, strict=True)]


def reinforced(curve: Mapping[str, Sequence[float]], far: float) -> dict[str, float]:
    """Gao's form of reinforcement on a run's looks up to a KL of `far` nats, R² on all looks too, and where gold was highest.

    A run of which no two looks lie between 0 and `far` is fitted whole.
    """
    whole = fit(RL, curve["distance"], curve["gold"])
    near = [i for i, kl in enumerate(curve["kl"]) if kl <= far]
    found = whole
    if sum(curve["distance"][i] > 0 for i in near) > 1:
        found = fit(RL, [curve["distance"][i] for i in near], [curve["gold"][i] for i in near])
    peak = max(range(len(curve["gold"])), key=lambda i: curve["gold"][i])
    return {
        "alpha": found.alpha, "beta": found.beta, "r2": found.r2, "r2 whole": whole.r2,
        "peak": curve["gold"][peak], "peak step": curve["step"][peak],
        "peak kl": curve["kl"][peak], "end": curve["gold"][-1], "end kl": curve["kl"][-1],
    }  # fmt: skip


def at_equal_distance(curves: Sequence[Mapping[str, Sequence[float]]], far: float, points: int = 24) -> dict[str, list[float]]:
    """The mean gold of several runs where all are equally far from where they began, at √KL from 0 to the least of their
    furthest, and at most to a KL of `far` nats.

    Runs spend KL at different rates, so at the same step some have passed their peak and others are on the way to it.
    """
    ways = [list(itertools.accumulate(curve["distance"], max)) for curve in curves]
    end = min([math.sqrt(far), *(way[-1] for way in ways)])
    distance = np.linspace(0.0, end, points)
    gold = np.mean([np.interp(distance, way, curve["gold"]) for way, curve in zip(ways, curves, strict=True)], axis=0)
    return {"distance": distance.tolist(), "gold": gold.tolist()}


def beside(held: Mapping[str, Sequence[float]], free: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """A run with a KL penalty beside one without, at equal KL: its gold and its proxy-gold gap less those of the free run, mean
    over its looks beyond 1 nat that the free run came as far as; and its last gold beside that of the free run stopped there.

    The free run is read along its KL, each look at the furthest it had been by then. 0 where no look is to be compared.
    """
    way = list(itertools.accumulate(free["kl"], max))

    def at(kl: float, name: str) -> float:
        return float(np.interp(kl, way, free[name]))

    rows = [i for i, kl in enumerate(held["kl"]) if 1.0 <= kl <= way[-1]]
    gold = [held["gold"][i] - at(held["kl"][i], "gold") for i in rows]
    gap = [held["proxy"][i] - at(held["kl"][i], "proxy") - g for i, g in zip(rows, gold, strict=True)]
    return {
        "gold": float(np.mean(gold)) if rows else 0.0, "gap": float(np.mean(gap)) if rows else 0.0,
        "end": held["gold"][-1], "end kl": held["kl"][-1], "stopped early": at(held["kl"][-1], "gold"),
    }  # fmt: skip


def adversarial(seen: Seen, n: int, gold: Unit, proxy: Unit) -> list[dict[str, Any]]:
    """The n different texts of a look that the proxy likes most, with what both think of them."""
    order = sorted(range(len(seen.gold)), key=lambda i: -seen.look.proxy[i])
    rows: dict[str, dict[str, Any]] = {}
    for i in order:
        rows.setdefault(
            seen.look.completions[i],
            {
                "prompt": seen.look.prompts[i], "text": seen.look.completions[i], "proxy": float(proxy([seen.look.proxy[i]])[0]),
                "gold": float(gold([seen.gold[i]])[0]), "kl": seen.look.kl[i],
            },
        )  # fmt: skip
    return list(rows.values())[:n]
