"""What can be known of a policy's texts without gold. Each function is one signal.

Legend: N samples, K judges, D dimensions.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from backflip.maths.shares import Share, wilson_share
from backflip.rewards.language import script, words
from backflip.runs.alarms import repeated_share

Floats = NDArray[np.float64]


class Scale(NamedTuple):
    """Mean and standard deviation of a model's scores on the first look: what its later scores are measured in."""

    mean: float
    std: float

    def of(self, scores: Sequence[float]) -> Floats:
        """Scores in standard deviations above that mean, (N,)."""
        return (np.asarray(scores, dtype=np.float64) - self.mean) / self.std


def scale_of(scores: Sequence[float]) -> Scale:
    """The scale of a model, from what the first policy wrote. Scores that are all the same keep their own unit."""
    std = statistics.pstdev(scores)
    return Scale(statistics.fmean(scores), std if std > 1e-12 else 1.0)


def quality(judges_KN: Sequence[Floats], pessimism: float) -> Floats:
    """What judges that nobody optimises make of each sample, (N,), in standard deviations of the first look.

        q = mean_k z_k − pessimism · std_k z_k

    With pessimism it is the uncertainty-weighted objective of Coste et al. 2023 (2310.02743), section 3, with the standard
    deviation in the variance's place, and on judges instead of on what is optimised. One judge disagrees with nobody.
    """
    table_KN = np.stack(judges_KN)
    found: Floats = table_KN.mean(axis=0) - pessimism * table_KN.std(axis=0)
    return found


def disagreement(models_KN: Sequence[Floats]) -> Floats:
    """The standard deviation between models' standardised scores of each sample, (N,); 0 for a single model.

    Reward models of the same data agree where they have seen something alike (Coste et al. 2023), so it grows where a policy has
    left what they know. The proxy counts as one of them.
    """
    found: Floats = np.stack(models_KN).std(axis=0)
    return found


def repetition(texts: Sequence[str]) -> float:
    """The share of n-grams that stood in their text before, mean over texts long enough to repeat themselves; 0 without any."""
    shares = [share for text in texts if (share := repeated_share(text)) is not None]
    return statistics.fmean(shares) if shares else 0.0


def boilerplate(texts: Sequence[str], *, size: int = 4) -> float:
    """The share of texts that hold the commonest run of `size` words: near 1 when a policy says the same thing to everybody."""
    seen: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        parts = text.split()
        seen.update({tuple(parts[i : i + size]) for i in range(len(parts) - size + 1)})
    return max(seen.values()) / len(texts) if seen else 0.0


def distinct(texts: Sequence[str]) -> float:
    """The share of different texts."""
    return len(set(texts)) / len(texts)


def scripts(texts: Sequence[str]) -> dict[str, float]:
    """The share of words in each script (LATIN, CJK, …); empty without words."""
    seen = Counter(script(word[0]) for text in texts for word in words(text))
    total = sum(seen.values())
    return {name: count / total for name, count in sorted(seen.items())}


def language_drift(before: Mapping[str, float], now: Mapping[str, float]) -> float:
    """Half the summed difference of two distributions over scripts (total variation): 0 the same, 1 nothing in common.

    Texts without a single word have drifted by 1 from texts with words.
    """
    if not before or not now:
        return float(bool(before) != bool(now))
    return 0.5 * sum(abs(before.get(name, 0.0) - now.get(name, 0.0)) for name in before.keys() | now.keys())


def label_accuracy(left: Sequence[float], right: Sequence[float], p_left: Sequence[float]) -> Share:
    """How often a reward model is right on comparisons, ties of the label left out, equal scores half right; Wilson's interval.

    On the newest labels, which are about what the policy writes now, it falls before gold does: the model was fitted to older
    texts.
    """
    rows = [(a - b, p) for a, b, p in zip(left, right, p_left, strict=True) if p != 0.5]
    hits = sum(0.5 if gap == 0 else float((gap > 0) == (p > 0.5)) for gap, p in rows)
    return wilson_share(hits, len(rows))


def win_share(p_new: Sequence[float]) -> Share:
    """How often people prefer the new policy, from comparisons with an older one; a tie is half a win; Wilson's interval."""
    return wilson_share(sum(p_new), len(p_new))
