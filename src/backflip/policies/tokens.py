"""Token rectangles: left-padded queries beside right-padded responses.

Legend: B rows, Q query columns, T response columns, L = Q + T.

    query_BQ      . . q q q q      response_BT   a a a e . .
    query_mask    0 0 1 1 1 1      mask_BT       1 1 1 1 0 0

Every row's last query token touches its first response token, so position T = 0 means the same in every row. What
stands under a zero mask never matters: positions are counted from the mask and attention does not see it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from backflip.policies.transfer import send

PositionIds = Literal["mask", "absolute"]


@dataclass(frozen=True)
class TokenBatch:
    """Queries and responses of B rows, as ids and 0/1 masks (int64)."""

    query_BQ: Tensor
    query_mask_BQ: Tensor
    response_BT: Tensor
    mask_BT: Tensor

    def __len__(self) -> int:
        return self.query_BQ.shape[0]

    @property
    def ids_BL(self) -> Tensor:
        """Query and response side by side."""
        return torch.cat([self.query_BQ, self.response_BT], dim=1)

    @property
    def attention_BL(self) -> Tensor:
        """1 where a token may be attended to."""
        return torch.cat([self.query_mask_BQ, self.mask_BT], dim=1)

    def lengths(self) -> list[int]:
        """Real tokens of each row, query and response together."""
        lengths: list[int] = (self.query_mask_BQ.sum(1) + self.mask_BT.sum(1)).tolist()
        return lengths

    def rows(self, index: Tensor | slice) -> TokenBatch:
        """The rows named by `index`, in that order, all columns kept."""
        return TokenBatch(*(getattr(self, f.name)[index] for f in dataclasses.fields(self)))

    def to(self, device: torch.device) -> TokenBatch:
        """The same batch on another device."""
        return TokenBatch(*(send(getattr(self, f.name), device) for f in dataclasses.fields(self)))


def positions(attention_BL: Tensor) -> Tensor:
    """Position of each token = number of real tokens before it (the exclusive cumulative sum of the mask), ≥ 0.

    "The N Implementation Details of RLHF with PPO", detail 3.
    """
    return (attention_BL.cumsum(dim=1) - attention_BL).long()


def left_aligned(ids_BQ: Tensor, mask_BQ: Tensor) -> tuple[Tensor, Tensor]:
    """The same rows with their padding behind them, (B, Q) each, for a model that counts positions from the first column."""
    order_BQ = mask_BQ.argsort(dim=1, descending=True, stable=True)
    return ids_BQ.gather(1, order_BQ), mask_BQ.gather(1, order_BQ)


def pad(rows: Sequence[Sequence[int]], *, fill: int, left: bool, width: int | None = None) -> tuple[Tensor, Tensor]:
    """Rows of ids as a rectangle and its mask, both (B, width); `width` defaults to the longest row."""
    columns = max(map(len, rows), default=0) if width is None else width
    ids = torch.full((len(rows), columns), fill, dtype=torch.long)
    mask = torch.zeros((len(rows), columns), dtype=torch.long)
    for i, row in enumerate(rows):
        if row:
            span = slice(columns - len(row), columns) if left else slice(0, len(row))
            ids[i, span] = torch.tensor(row, dtype=torch.long)
            mask[i, span] = 1
    return ids, mask


def token_batch(
    queries: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], *, fill: int, query_width: int | None = None,
    response_width: int | None = None,
) -> TokenBatch:  # fmt: skip
    """Query and response ids of B rows as one rectangle."""
    query_BQ, query_mask_BQ = pad(queries, fill=fill, left=True, width=query_width)
    response_BT, mask_BT = pad(responses, fill=fill, left=False, width=response_width)
    return TokenBatch(query_BQ, query_mask_BQ, response_BT, mask_BT)
