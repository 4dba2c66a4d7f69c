"""Several reward models as one: what they agree on is worth more than what one of them believes.

Each member is normalised by itself, so that no member's scale decides. Coste et al. 2023 (2310.02743): the mean, the worst
case, and the mean less a multiple of the variance.

    FOLDER/ensemble.json     how the members' scores are combined
    FOLDER/member0/ …        each a reward model of its own, which `AutoModelForSequenceClassification` loads

Legend: K members, B completions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from backflip.errors import ConfigError, ModelError
from backflip.maths.tensors import check_shapes
from backflip.rewards.learned import RewardModel

Combine = Literal["mean", "worst", "uncertainty"]
FILE = "ensemble.json"


def combined(scores_KB: Tensor, how: Combine, uncertainty: float = 0.5) -> Tensor:
    """One score for each completion, (B,): mean_k, min_k, or mean_k − λ·var_k with λ = `uncertainty`.

    Coste et al. 2023, section 3: mean optimisation, WCO, UWO. The variance is that of the members (divided by K). Raises
    ValueError for scores of another rank.
    """
    if scores_KB.dim() != 2 or not len(scores_KB):
        raise ValueError(f"members' scores are a table of members by completions, not of shape {tuple(scores_KB.shape)}")
    if how == "worst":
        return scores_KB.min(dim=0).values
    mean_B = scores_KB.mean(dim=0)
    return mean_B if how == "mean" else mean_B - uncertainty * scores_KB.var(dim=0, unbiased=False)


def pair_disagreement(left_KN: Tensor, right_KN: Tensor) -> Tensor:
    """How far members differ about which of two completions is better: the standard deviation of σ(difference), (N,).

    0 where all say the same, at most ½; what to ask next, and where not to trust the ensemble.
    """
    check_shapes(left_KN=left_KN, right_KN=right_KN)
    return (left_KN - right_KN).sigmoid().std(dim=0, unbiased=False)


class Ensemble:
    """A `RewardFunction` made of K reward models. Raises ConfigError without any.

    `metrics` tells of the last call: `ensemble/std`, the members' standard deviation about a completion, mean over completions.
    """

    def __init__(self, members: Sequence[RewardModel], *, combine: Combine = "mean", uncertainty: float = 0.5) -> None:
        if not members:
            raise ConfigError("an ensemble has at least one member")
        self.members = list(members)
        self.combine: Combine = combine
        self.uncertainty = uncertainty
        self.metrics: dict[str, float] = {}

    @property
    def __name__(self) -> str:
        return "ensemble"

    def scores(self, prompts: list[Any], completions: list[str], **columns: list[Any]) -> Tensor:
        """What each member thinks, (K, B), float64."""
        return torch.tensor([member(prompts, completions, **columns) for member in self.members], dtype=torch.float64)

    def __call__(self, prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[float]:
        """The combined scores, one per completion."""
        scores_KB = self.scores(prompts, completions, **columns)
        self.metrics = {"ensemble/std": float(scores_KB.std(dim=0, unbiased=False).mean())} if completions else {}
        found: list[float] = combined(scores_KB, self.combine, self.uncertainty).tolist()
        return found

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters of all members."""
        for k, member in enumerate(self.members):
            yield from ((f"member{k}.{name}", parameter) for name, parameter in member.parameters())

    @property
    def bias(self) -> tuple[float, ...]:
        """The members' biases."""
        return tuple(member.bias for member in self.members)

    def save(self, folder: str | Path) -> None:
        """Write every member, and how they are combined."""
        folder = Path(folder)
        for k, member in enumerate(self.members):
            (folder / f"member{k}").mkdir(parents=True, exist_ok=True)
            member.save(folder / f"member{k}")
        card = {"members": len(self.members), "combine": self.combine, "uncertainty": self.uncertainty}
        (folder / FILE).write_text(json.dumps(card) + "\n")

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "auto") -> Self:
        """Read what `save` wrote. Raises ModelError."""
        folder = Path(folder)
        try:
            card = json.loads((folder / FILE).read_text())
            n, combine, uncertainty = int(card["members"]), card["combine"], float(card["uncertainty"])
            if combine not in ("mean", "worst", "uncertainty") or n < 1:
                raise ValueError(f"combine {combine!r}, {n} members")
        except (OSError, ValueError, KeyError, TypeError) as problem:
            raise ModelError(f"{folder / FILE} cannot be read: {problem}") from problem
        members = [RewardModel.load(folder / f"member{k}", device=device) for k in range(n)]
        return cls(members, combine=combine, uncertainty=uncertainty)


Learned = RewardModel | Ensemble


def load_reward(path: str | Path, *, device: str = "auto") -> Learned:
    """A learned reward by folder or hub name: an ensemble where the folder is one, else a reward model. Raises ModelError."""
    return Ensemble.load(path, device=device) if (Path(path) / FILE).is_file() else RewardModel.load(path, device=device)
