"""Reward per feature: which measurable properties of texts the proxy pays for, and whether the judges pay for them too.

Legend: N samples, F features.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backflip.monitor.signals import Floats, repetition

RISEN = 6
"""Words that became more frequent, which are looked at one by one."""

RIDGE = 1.0
"""Weight of the penalty, in samples: features that go together share what they explain."""

_WORD = re.compile(r"\w+")

PLAIN: dict[str, Callable[[str], float]] = {
    "words": lambda text: float(len(text.split())),
    "letters per word": lambda text: _mean([len(word) for word in text.split()]),
    "different words": lambda text: len(set(_WORD.findall(text.lower()))) / max(1, len(_WORD.findall(text))),
    "repeated n-grams": lambda text: repetition([text]),
    "punctuation": lambda text: sum(not c.isalnum() and not c.isspace() for c in text) / max(1, len(text)),
    "capitals": lambda text: sum(c.isupper() for c in text) / max(1, len(text)),
    "figures": lambda text: sum(c.isdigit() for c in text) / max(1, len(text)),
    "lines": lambda text: float(text.count("\n")),
}
"""Features of any text; the words that became frequent come on top."""


@dataclass(frozen=True, slots=True)
class Attribution:
    """What a feature did between two looks: its mean then and now, and what of the gain of the proxy and of the judges goes with
    it, in standard deviations of their first scores. `excess` is what the proxy paid that the judges did not."""

    feature: str
    before: float
    now: float
    proxy: float
    judges: float

    @property
    def excess(self) -> float:
        """What the proxy paid for it and the judges did not."""
        return self.proxy - self.judges


def risen_words(before: Sequence[str], now: Sequence[str], most: int = RISEN) -> list[str]:
    """The words whose share of texts rose most, those in a tie by the alphabet."""
    then, later = _in_texts(before), _in_texts(now)
    rises = {word: later[word] / len(now) - then[word] / len(before) for word in later}
    return sorted((word for word, rise in rises.items() if rise > 0), key=lambda word: (-rises[word], word))[:most]


def table(texts: Sequence[str], risen: Sequence[str]) -> Floats:
    """The features of texts, (N, F): those of `PLAIN`, then how often each risen word stands in it."""
    rows = []
    for text in texts:
        heard = Counter(_WORD.findall(text.lower()))
        rows.append([measure(text) for measure in PLAIN.values()] + [float(heard[word]) for word in risen])
    return np.array(rows, dtype=np.float64)


def attribute(
    before: Sequence[str], now: Sequence[str], proxy: tuple[Floats, Floats], judges: tuple[Floats, Floats] | None
) -> list[Attribution]:  # fmt: skip
    """How the gain from `before` to `now` divides among features, the largest excess first.

        gain_f = β_f · (mean_now f − mean_before f),   β by ridge regression of scores on standardised features, both looks pooled

    `proxy` and `judges` are the standardised scores of both looks, (N,) each. A regression tells what goes with a score, not what
    causes it.
    """
    risen = risen_words(before, now)
    names = [*PLAIN, *(f"“{word}”" for word in risen)]
    old_NF, new_NF = table(before, risen), table(now, risen)
    pooled = np.concatenate([old_NF, new_NF])
    spread_F = pooled.std(axis=0)
    live = spread_F > 1e-12
    z = (pooled[:, live] - pooled[:, live].mean(axis=0)) / spread_F[live]
    shift = (new_NF.mean(axis=0) - old_NF.mean(axis=0))[live] / spread_F[live]
    paid = _coefficients(z, np.concatenate(proxy)) * shift
    meant = _coefficients(z, np.concatenate(judges)) * shift if judges is not None else np.zeros_like(paid)
    places = np.flatnonzero(live)
    found = [
        Attribution(names[f], float(old_NF[:, f].mean()), float(new_NF[:, f].mean()), float(p), float(m))
        for f, p, m in zip(places, paid, meant, strict=True)
    ]
    return sorted(found, key=lambda a: (-a.excess, a.feature))


def _coefficients(z_NF: Floats, scores_N: Floats) -> Floats:
    """Ridge: (ZᵀZ + λI)⁻¹ Zᵀ(y − ȳ)."""
    gram: NDArray[np.float64] = z_NF.T @ z_NF + RIDGE * np.eye(z_NF.shape[1])
    found: Floats = np.linalg.solve(gram, z_NF.T @ (scores_N - scores_N.mean()))
    return found


def _in_texts(texts: Sequence[str]) -> Counter[str]:
    """In how many texts each word stands."""
    return Counter(word for text in texts for word in set(_WORD.findall(text.lower())))


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values) if values else 0.0
