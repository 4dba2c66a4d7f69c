"""A reward model for each person: one shared body, and heads that are partly pooled.

    r_j(x, y) = (w + v_j)·h(x, y),   v_j ~ N(0, spread²)

h is what the body of a fitted reward model says at the token where its score is read, on the scale of its own standard
deviations. People who answered little keep to everybody's head, who answered much get their own. A pooled model serves the
majority; this is for knowing what the others would have liked, and for asking whose taste a policy should be held to.

Legend: B rows, D hidden size, N comparisons, J people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from backflip.errors import DataError, UserError
from backflip.maths.pooling import Pooled, pooled_bradley_terry
from backflip.policies.tokens import pad, positions
from backflip.policies.transfer import send
from backflip.records import Comparison, Prompt
from backflip.rewards.learned import RewardModel

Floats = NDArray[np.float64]
Over = Literal["last", "mean"]


@dataclass(frozen=True, eq=False)
class PersonalRewards:
    """The heads of the people `names`, on the body of `model`; `scale_D` are the units of the hidden states they weigh."""

    model: RewardModel
    names: tuple[str, ...]
    fit: Pooled
    scale_D: Floats

    @property
    def heads_JD(self) -> Floats:
        """Everybody's head on the hidden states as they come, in the order of `names`."""
        found: Floats = self.fit.taste_JF / self.scale_D
        return found

    @property
    def shared_D(self) -> Floats:
        """The head that all share: that of somebody of whom nothing is known."""
        found: Floats = self.fit.shared_F / self.scale_D
        return found

    def scores(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> Floats:
        """What each completion is worth to each person, (B, J), in nats; only differences on one prompt mean something."""
        found: Floats = hidden_states(self.model, prompts, completions) @ self.heads_JD.T
        return found

    def reward_model(self, name: str | None = None) -> RewardModel:
        """An ordinary reward model with the head of one person, or with what all share (None). Raises UserError."""
        if name is not None and name not in self.names:
            raise UserError(f"there are no comparisons by {name!r}; heads are those of {', '.join(self.names[:10])}")
        head = self.shared_D if name is None else self.heads_JD[self.names.index(name)]
        made = RewardModel.copy_of(self.model)
        with torch.no_grad():
            made.model.score.weight.copy_(torch.from_numpy(head).to(made.model.score.weight).unsqueeze(0))
            made.gain.fill_(1.0)
        made.bias = 0.0
        return made


def fit_personal(
    model: RewardModel, comparisons: Sequence[Comparison], *, spread: float | None = None, ridge: float = 0.01,
    error: float | None = 0.0, measured: tuple[Floats, Floats] | None = None,
) -> PersonalRewards:  # fmt: skip
    """Fit a head for everybody who stands as `annotator` of a comparison, on the body of a fitted reward model, which stays.

    `spread`, `ridge` and `error` are those of `maths.pooling.pooled_bradley_terry`; comparisons of one question count each by
    itself. `measured` is what `gaps` gave for these comparisons, where that is at hand. Raises DataError without comparisons, or
    where they do not say whose they are.
    """
    if not comparisons:
        raise DataError("there are no comparisons to learn from")
    if not all(comparison.annotator for comparison in comparisons):
        raise DataError("personal reward models need comparisons that say who made them (annotator)")
    names = sorted({comparison.annotator for comparison in comparisons})
    place = {name: j for j, name in enumerate(names)}
    gap_ND, scale_D = gaps(model, comparisons) if measured is None else measured
    fit = pooled_bradley_terry(
        gap_ND / scale_D, [place[c.annotator] for c in comparisons], [c.p_left for c in comparisons], n_people=len(names),
        ridge=ridge, spread=spread, error=error,
    )  # fmt: skip
    return PersonalRewards(model, tuple(names), fit, scale_D)


def gaps(model: RewardModel, comparisons: Sequence[Comparison], *, over: Over = "last") -> tuple[Floats, Floats]:
    """Hidden states left − right of comparisons, (N, D), and their scale: standard deviations over the texts, (D,)."""
    rows: dict[tuple[str, str], int] = {}
    prompts: list[Prompt] = []
    for comparison in comparisons:
        for text in (comparison.left, comparison.right):
            if rows.setdefault((comparison.prompt.id, text), len(rows)) == len(prompts):
                prompts.append(comparison.prompt)
    hidden_BD = hidden_states(model, prompts, [text for _, text in rows], over=over)
    left = [rows[c.prompt.id, c.left] for c in comparisons]
    right = [rows[c.prompt.id, c.right] for c in comparisons]
    scale_D = hidden_BD.std(axis=0)
    return hidden_BD[left] - hidden_BD[right], np.where(scale_D > 1e-8, scale_D, 1.0)


@torch.no_grad()
def hidden_states(model: RewardModel, prompts: Sequence[Prompt], completions: Sequence[str], *, over: Over = "last") -> Floats:
    """What the body says of each text, (B, D), in order: where the score is read, which the model's own head would make the
    score, or as the mean over all tokens, which says more of what was never fitted to comparisons."""
    encoded = [model.encode(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))  # rows of like length share a batch: less padding
    found: list[Floats | None] = [None] * len(encoded)
    for start in range(0, len(order), model.batch_size):
        part = order[start : start + model.batch_size]
        fill = model.tokenizer.pad_token_id or 0
        ids_BL, mask_BL = (send(t, model.device) for t in pad([encoded[i] for i in part], fill=int(fill), left=False))
        hidden_BLD = model.model.base_model(
            input_ids=ids_BL, attention_mask=mask_BL, position_ids=positions(mask_BL), use_cache=False
        ).last_hidden_state
        n_B = mask_BL.sum(1)
        if over == "last":
            hidden_BD = hidden_BLD[torch.arange(len(part), device=n_B.device), n_B - 1]
        else:
            hidden_BD = (hidden_BLD * mask_BL.unsqueeze(-1)).sum(1) / n_B.unsqueeze(-1)
        for i, row in zip(part, hidden_BD.double().cpu().numpy(), strict=True):
            found[i] = row
    return np.array(found, dtype=np.float64).reshape(len(encoded), -1)
