"""What is counted in `r1`: right answers, the languages of thoughts, and what is worth knowing over seeds.

Legend: B rows, T response columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from backflip.lab.r1_zero_figures import judged
from backflip.maths.shares import wilson_share
from backflip.policies.language import LanguagePolicy
from backflip.policies.tokens import token_batch
from backflip.records import Sample
from backflip.rewards.language import SCRIPTS, LanguageConsistency, script, thoughts, words
from backflip.train.gathering import SAME

TARGET = "en"
"""The language of problems and answers, in which thoughts should be too; by its script."""
CONSISTENCY = LanguageConsistency(target=TARGET)
ROWS = 256
"""Completions that are read at a time."""


class Spoken(NamedTuple):
    """Words of a thought: those of the target language, and all others."""

    target: int
    other: int

    @property
    def mixed(self) -> bool:
        """Whether there are some of either."""
        return self.target > 0 and self.other > 0


def spoken(text: str) -> Spoken:
    """The words of a completion's thoughts; figures are none, as in the reward.

    >>> spoken("<think>b2B709丙八寅三一一</think><answer>c1</answer>")
    Spoken(target=2, other=6)
    """
    found = words(thoughts(text))
    target = sum(script(word[0]) in SCRIPTS[TARGET] for word in found)
    return Spoken(target, len(found) - target)


def figures(samples: Sequence[Sample]) -> dict[str, Any]:
    """Accuracy and the other shares of completions of different problems, each with Wilson's 95 % interval, and the mean length.

    `other` is the share of the words of all thoughts that are not of the target language, without an interval because words of
    one thought are not independent; `mixed` the share of completions with words of both; `consistency` the mean reward.
    """
    tries = [
        judged(s.prompt.plain, str(s.prompt.columns["answer"]), s.text, finished=s.finished, length=s.n_tokens) for s in samples
    ]
    said = [spoken(s.text) for s in samples]
    n, total = len(samples), sum(s.target + s.other for s in said)
    return {
        "accuracy": wilson_share(sum(t.right for t in tries), n)._asdict(),
        "mixed": wilson_share(sum(s.mixed for s in said), n)._asdict(),
        "format": wilson_share(sum(t.finished and t.reading.well_formed for t in tries), n)._asdict(),
        "full": wilson_share(sum(t.reading.style == "full" for t in tries), n)._asdict(),
        "other": sum(s.other for s in said) / total if total else 0.0,
        "consistency": sum(CONSISTENCY([], [s.text for s in samples])) / n,
        "length": sum(t.length for t in tries) / n,
        "unfinished": sum(not t.finished for t in tries) / n,
    }


def dead_share(groups: Sequence[Sequence[float]]) -> float:
    """The share of problems whose completions all score the same.

    >>> dead_share([[1.0, 1.0], [0.0, 1.0]])
    0.5
    """
    return sum(max(scores) - min(scores) < SAME for scores in groups) / len(groups)


@torch.no_grad()
def distances(policy: LanguagePolicy, reference: LanguagePolicy | None, samples: Sequence[Sample]) -> dict[str, float | None]:
    """Of a policy's own samples: entropy in nats a token, and KL to a reference in nats a completion, None without one."""
    entropy, kl, n_tokens = 0.0, 0.0, 0
    for start in range(0, len(samples), ROWS):
        part = samples[start : start + ROWS]
        batch = token_batch([policy.encode(s.prompt) for s in part], [s.tokens for s in part], fill=policy.fill_id)
        scores, on_BT = policy.score(batch, entropy=True), batch.mask_BT.bool()
        assert scores.entropy_BT is not None
        n_tokens += int(on_BT.sum())
        entropy += scores.entropy_BT[on_BT].double().sum().item()
        if reference is not None:
            kl += (scores.logps_BT - reference.score(batch).logps_BT)[on_BT].double().sum().item()
    return {"entropy": entropy / n_tokens, "kl": None if reference is None else kl / len(samples)}
