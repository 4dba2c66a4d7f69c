"""What a step learns from before anything is learned: prompts, their completions, and what those were worth.

Legend: B rows, T response columns, P prompts.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from backflip.policies.tokens import TokenBatch
from backflip.records import Prompt
from backflip.rollout.local import Rollout

SAME = 1e-6
"""Scores of a prompt's completions whose standard deviation is below this are all the same."""


class Judged(NamedTuple):
    """What the completions of a step were worth: their text, the score that is optimised, the raw one, and those
    that are only watched, the gold one and the sentinel's; the score of the prompt's greedy completion where one was asked
    for; rewards inside the completions where there are any, (B, T), part of the score; and what a composed reward says of its
    parts."""

    texts: list[str]
    scores_B: Tensor
    proxy: list[float]
    gold: list[float] | None
    sentinel: list[float] | None
    found_B: Tensor
    kept_B: Tensor
    baseline_B: Tensor | None = None
    inside_BT: Tensor | None = None
    parts: dict[str, float] = {}  # noqa: RUF012


class Draw(NamedTuple):
    """Prompts, a completion of each row, and their worth."""

    prompts: list[Prompt]
    rollout: Rollout
    judged: Judged

    def spread(self, size: int) -> Tensor:
        """Standard deviation of the optimised scores of each prompt's `size` completions, (P,)."""
        return self.judged.scores_B.view(-1, size).std(1)


def join(draws: Sequence[Draw], groups: Sequence[tuple[int, int]], size: int, *, fill: int) -> Draw:
    """The groups named (draw, place in it), `size` rows each, as one draw; `fill` stands where a narrower one was padded."""
    order = [(d, g * size + i) for d, g in groups for i in range(size)]
    starts = list(itertools.accumulate((len(draw.prompts) for draw in draws), initial=0))
    index = torch.tensor([starts[d] + row for d, row in order])
    query_width = max(draw.rollout.tokens.query_BQ.shape[1] for draw in draws)
    width = max(draw.rollout.tokens.mask_BT.shape[1] for draw in draws)

    def laid(sources: Sequence[Tensor], value: float, *, left: bool) -> Tensor:
        missing = [(query_width if left else width) - source.shape[1] for source in sources]
        wide = (pad(source, (m, 0) if left else (0, m), value=value) for source, m in zip(sources, missing, strict=True))
        return gathered(list(wide))

    def gathered(values: Sequence[Tensor]) -> Tensor:
        whole = torch.cat(list(values))
        return whole[index.to(whole.device)]

    batches, rollouts = [draw.rollout.tokens for draw in draws], [draw.rollout for draw in draws]
    tokens = TokenBatch(
        laid([batch.query_BQ for batch in batches], fill, left=True),
        laid([batch.query_mask_BQ for batch in batches], 0, left=True),
        laid([batch.response_BT for batch in batches], fill, left=False),
        laid([batch.mask_BT for batch in batches], 0, left=False),
    )
    logps_BT = laid([each.logps_BT for each in rollouts], 0.0, left=False)
    rollout = Rollout(tokens, logps_BT, gathered([each.finished_B for each in rollouts]))
    fields: dict[str, Any] = {"inside_BT": None}
    if any(draw.judged.inside_BT is not None for draw in draws):
        empty = [torch.zeros_like(draw.rollout.logps_BT) for draw in draws]
        inside = [
            zero if draw.judged.inside_BT is None else draw.judged.inside_BT for draw, zero in zip(draws, empty, strict=True)
        ]
        fields["inside_BT"] = laid(inside, 0.0, left=False)
    for name in ("texts", "proxy", "gold", "sentinel"):
        values = [getattr(draw.judged, name) for draw in draws]
        fields[name] = None if values[0] is None else [values[d][row] for d, row in order]
    for name in ("scores_B", "found_B", "kept_B", "baseline_B"):
        values = [getattr(draw.judged, name) for draw in draws]
        fields[name] = None if values[0] is None else gathered(values)
    names = list(dict.fromkeys(name for draw in draws for name in draw.judged.parts))
    fields["parts"] = {name: _mean([d.judged.parts[name] for d in draws if name in d.judged.parts]) for name in names}
    return Draw([draws[d].prompts[row] for d, row in order], rollout, Judged(**fields))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def overlong(kept_B: Tensor, longest: int, buffer: int) -> Tensor:
    """DAPO's soft overlong punishment, (B,): 0 up to `longest` − `buffer` tokens, then evenly up to 1 at `longest`.

    Yu et al. 2025 (2503.14476), eq. 13, taken away from the score; tokens include the one that ends the text.
    """
    return ((kept_B - (longest - buffer)) / buffer).clamp(0.0, 1.0)
