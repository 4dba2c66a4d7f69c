"""Win rates over the first policy's samples: by gold, and as the proxy predicts them.

Shapes: P prompts, N samples of each by the first policy, B texts of a look.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from backflip.lab.guard_recorder import Seen
from backflip.lab.many_tries import doublings
from backflip.maths.calibration import fit_temperature, ranking_area
from backflip.maths.overoptimisation import Floats
from backflip.maths.ratings import best_of_n, best_of_n_kl

Curve = dict[str, list[float]]


def temperature(proxy_PN: Floats, gold_PN: Floats) -> float:
    """T such that σ(Δproxy/T) is what gold says of the first policy's samples, in pairs of one prompt, with the least log loss.

    A proxy is scaled to deviation 1 when it is made, so its chances are found again; at KL 0 they are right on average.
    """
    even = proxy_PN.shape[1] // 2 * 2
    gap = proxy_PN[:, 0:even:2] - proxy_PN[:, 1:even:2]
    better = 0.5 + 0.5 * np.sign(gold_PN[:, 0:even:2] - gold_PN[:, 1:even:2])
    return fit_temperature(gap.ravel(), better.ravel()).value


def chance(gap: Floats) -> Floats:
    """σ(gap), elementwise: Bradley and Terry's chance of winning by a difference in score."""
    found: Floats = 0.5 * (1.0 + np.tanh(0.5 * gap))
    return found


def by_look(seen: Sequence[Seen], prompts: Sequence[str], proxy_PN: Floats, gold_PN: Floats, temperature: float) -> Curve:
    """Every look of a run: KL in nats a sequence, the true and the predicted win rate over the first policy's samples for the
    same prompt. Raises ValueError for a prompt that there are no samples of."""
    row = {prompt: i for i, prompt in enumerate(prompts)}
    found: Curve = {"step": [], "kl": [], "true": [], "predicted": []}
    for s in seen:
        places = [row.get(prompt, -1) for prompt in s.look.prompts]
        if min(places) < 0:
            raise ValueError(f"the look of step {s.look.step} has a prompt that the first policy has not answered")
        found["step"].append(float(s.look.step))
        found["kl"].append(float(np.mean(s.look.kl)))
        found["true"].append(float(np.mean([ranking_area(gold_PN[p], [g]) for g, p in zip(s.gold, places, strict=True)])))
        told = [chance((r - proxy_PN[p]) / temperature).mean() for r, p in zip(s.look.proxy, places, strict=True)]
        found["predicted"].append(float(np.mean(told)))
    return found


def by_n(proxy_PN: Floats, gold_PN: Floats, temperature: float, most: int) -> Curve:
    """Best of n = 1, 2, 4, … `most` by proxy: KL, the true and the predicted win rate over the other samples of its prompt.

    Of one draw both are a half.
    """
    ns = [n for n in doublings(most) if n <= proxy_PN.shape[1]]
    true, told = np.zeros((len(proxy_PN), len(ns))), np.zeros((len(proxy_PN), len(ns)))
    for p, (proxy_N, gold_N) in enumerate(zip(proxy_PN, gold_PN, strict=True)):
        true_N = over_others(gold_N, lambda gap: 0.5 + 0.5 * np.sign(gap))
        told_N = over_others(proxy_N, lambda gap: chance(gap / temperature))
        true[p] = [best_of_n(proxy_N, true_N, n) for n in ns]
        told[p] = [best_of_n(proxy_N, told_N, n) for n in ns]
    return {
        "n": [float(n) for n in ns], "kl": [best_of_n_kl(n) for n in ns], "true": true.mean(0).tolist(),
        "predicted": told.mean(0).tolist(),
    }  # fmt: skip


def over_others(score_N: Floats, wins: Callable[[Floats], Floats]) -> Floats:
    """How often each sample wins over the others, (N,), by the differences in score."""
    table_NN = wins(score_N[:, None] - score_N[None, :])
    found: Floats = (table_NN.sum(1) - table_NN.diagonal()) / (len(score_N) - 1)
    return found
