"""The rollout engine for GPUs: a step whose tensors never change shape or address, so that it can be recorded and replayed.

    columns    0 1 2 …                 window             capacity
    slot 0     q q q q a a a a . . . . |                            where = 8
    slot 1     q q a a a . . . . . . . |                            where = 5
    slot 2     q q q q q q q a a a a . |                            where = 11

Every row begins at column 0 and its next key and value go where it ends, so one number a row says what it may look at. A step
reads a token from every slot, draws the next and puts it back there; it works on a few sizes only, so many slots by so many
columns. Rows that are done idle in their slots. The host, which knows how long rows can have become, picks the sizes and asks
the device who is done every few steps only. What a step works on is kept between rollouts of one model (see `Kept`).

Legend: B slots in use, U prompts that enter, Q their columns, E hidden size, K key-value heads, D head size, C columns, V
vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from backflip.policies.llama import LlamaForward
from backflip.policies.transfer import send
from backflip.rollout.draws import Draws
from backflip.rollout.engine import Cache, attend_one, distinct
from backflip.rollout.graphs import Graphs, recorder_for

LOOK_EVERY = 8
"""Steps between two questions to the device."""

FEWEST = 8
"""Slots below which a smaller batch is no faster."""

NARROW = 128
"""Columns of the narrowest window, and what every capacity is a multiple of."""

READ_AT_ONCE = 65536
"""Tokens of prompts, padding included, in one forward pass."""


class Need(NamedTuple):
    """How large a desk must be: jobs of one rollout, slots, columns."""

    jobs: int
    slots: int
    columns: int

    @classmethod
    def of(cls, queries: Sequence[Sequence[int]], draws: Draws) -> Need:
        """Rounded up, so that rollouts of nearly the same size need the same. One job more, which idle slots belong to."""
        n = len(queries)
        columns = max(map(len, queries)) + draws.settings.max_new_tokens
        return cls(1 << n.bit_length(), min(draws.settings.slots, power_of_two(n)), -(-columns // NARROW) * NARROW)

    def fits(self, other: Need) -> bool:
        """Whether this much is enough for the other's need."""
        return all(mine >= theirs for mine, theirs in zip(self, other, strict=True))

    def joined(self, other: Need) -> Need:
        """What is enough for both."""
        return Need(*map(max, self, other))


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least n."""
    return 1 << max(0, n - 1).bit_length()


def window_of(n: int, capacity: int) -> int:
    """Columns looked at when the longest row has n: a quarter above n at most, or the narrowest window; never above capacity."""
    step = max(NARROW, power_of_two(n) // 8)
    return min(capacity, -(-n // step) * step)


class Desk:
    """Everything a step reads and writes, allocated once.

    `where_B` is the column of the token in `token_B`, `job_B` whose it is. The last job is nobody's and never under way.
    """

    def __init__(self, forward: LlamaForward, draws: Draws, need: Need, device: torch.device) -> None:
        self.forward, self.need, self.device = forward, need, device
        self.draws = draws.room(need.jobs)
        self.cache = Cache.empty(forward, need.slots, need.columns, device)
        self.cos, self.sin = forward.angles(need.columns, device)
        self.columns_C, self.rows_B = (torch.arange(n, device=device) for n in (need.columns, need.slots))
        self.token_B, self.where_B, self.job_B = (torch.zeros(need.slots, dtype=torch.long, device=device) for _ in range(3))
        self.graphs = Graphs(recorder_for(device))

    @property
    def sizes(self) -> list[int]:
        """Numbers of slots that a step is made for, the largest first."""
        sizes = [self.need.slots]
        while sizes[-1] > FEWEST:
            sizes.append(-(-sizes[-1] // 2))
        return sizes

    @property
    def n_bytes(self) -> int:
        """Memory of the keys and values, beside which the rest is little."""
        return sum(t.numel() * t.element_size() for t in (*self.cache.keys, *self.cache.values))

    def alike(self, draws: Draws) -> bool:
        """Whether `draws` are drawn in the way that is part of what was recorded."""
        return (self.draws.settings, self.draws.eos_id) == (draws.settings, draws.eos_id)

    def clear(self, draws: Draws) -> None:
        """Nothing is left of the last rollout; the jobs of `draws` wait."""
        for tensor in (*self.cache.keys, *self.cache.values):
            tensor.zero_()  # a column nobody looks at is still multiplied, by zero, and NaN would stay NaN
        self.draws.copy_(draws)
        self.where_B.zero_()
        self.token_B.zero_()
        self.job_B.fill_(self.need.jobs - 1)

    def step(self, slots: int, window: int) -> None:
        """Read the token of each of the first `slots` slots and draw the next, looking back at `window` columns at most."""
        forward = self.forward
        token_B, where_B, job_B, rows_B = (t[:slots] for t in (self.token_B, self.where_B, self.job_B, self.rows_B))
        cos, sin = (table[where_B].unsqueeze(1) for table in (self.cos, self.sin))
        later_BC = self.columns_C[:window] > where_B.unsqueeze(1)
        hidden = torch.zeros_like(later_BC, dtype=torch.float32).masked_fill_(later_BC, -torch.inf)[:, None, None]
        x = forward.embed(token_B)
        for layer, keys, values in zip(forward.layers, self.cache.keys, self.cache.values, strict=True):
            q, k, v = forward.heads(layer, x, cos, sin)
            keys[rows_B, :, where_B] = k.to(keys.dtype)
            values[rows_B, :, where_B] = v.to(values.dtype)
            attended = attend_one(q, keys[:slots, :, :window], values[:slots, :, :window], hidden)
            x = forward.close(layer, x, attended)
        token_B.copy_(self.draws.advance(job_B, forward.logits(x)))
        where_B += self.draws.alive_N[job_B]  # so that an idle row stays inside its columns

    def enter(self, slots: list[int], queries: Sequence[Sequence[int]], first: int) -> None:
        """Read the prompts of jobs `first` and on into `slots`, and draw their first tokens."""
        forward, at = self.forward, send(torch.tensor(slots), self.device)
        ids_UQ, mask_UQ, group = distinct(queries, self.device, left=False)
        n_unique, width = ids_UQ.shape
        cos, sin = (table[:width].unsqueeze(1) for table in (self.cos, self.sin))
        x = forward.embed(ids_UQ)
        for layer, keys, values in zip(forward.layers, self.cache.keys, self.cache.values, strict=True):
            q, k, v = (t.transpose(1, 2).to(keys.dtype) for t in forward.heads(layer, x, cos, sin))
            keys[at, :, :width], values[at, :, :width] = k[group], v[group]
            x = forward.close(layer, x, causal(q, k, v).transpose(1, 2).flatten(2).to(x.dtype))
        length_U = mask_UQ.sum(1)
        logits_UV = forward.logits(x[self.rows_B[:n_unique], length_U - 1])
        self.job_B[at] = torch.arange(first, first + len(slots), device=self.device)
        self.where_B[at] = length_U[group]
        self.token_B[at] = self.draws.advance(self.job_B[at], logits_UV[group])

    def keep(self, rows: list[int], columns: int) -> None:
        """The rows of these slots move to the front."""
        at = send(torch.tensor(rows), self.device)
        self.cache.keep(at, 0, columns)
        for tensor in (self.token_B, self.where_B, self.job_B):
            tensor[: len(rows)] = tensor[at]


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention of (U, H, Q, D) on (U, K, Q, D). Padding stands behind every real token, so no mask is needed and flash
    attention can be used; what fused kernels there are in full precision want the heads of keys repeated."""
    groups = q.shape[1] // k.shape[1]
    shared = groups > 1 and q.dtype in (torch.bfloat16, torch.float16)
    if not shared:
        k, v = (t.repeat_interleave(groups, dim=1) if groups > 1 else t for t in (k, v))
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=shared)


class _Row(NamedTuple):
    """What the host knows of a row: its column is `offset` + steps so far, and after step `last` it has its full length."""

    offset: int
    last: int


@dataclass
class Rollouts:
    """One rollout at a desk, as the host sees it: who is in which slot, who waits."""

    desk: Desk
    queries: Sequence[Sequence[int]]
    live: dict[int, _Row] = field(default_factory=dict)
    waiting: int = 0
    steps: int = 0

    def go(self, draws: Draws) -> None:
        """Complete every query; what is drawn ends up in `draws`."""
        self.desk.clear(draws)
        n = len(self.queries)
        self.slots = self._size(n)
        while True:
            free = [slot for slot in range(self.slots) if slot not in self.live]
            if self.waiting < n and len(free) >= max(1, self.slots // 8):
                self.admit(free)
            elif not self.live:
                break
            else:
                if self.waiting == n:
                    self.shrink()
                self.advance()
            self.look(draws.decode)
        draws.copy_(self.desk.draws)

    def admit(self, free: list[int]) -> None:
        """Waiting queries take free slots."""
        limit = self.desk.draws.settings.max_new_tokens
        waiting = self.queries[self.waiting : self.waiting + len(free)]
        waiting = waiting[: max(1, READ_AT_ONCE // max(map(len, waiting)))]
        self.desk.enter(free[: len(waiting)], waiting, self.waiting)
        self.waiting += len(waiting)
        for slot, query in zip(free, waiting, strict=False):
            self.live[slot] = _Row(len(query) - self.steps, self.steps + limit - 1)

    def advance(self) -> None:
        """As many steps as nobody needs to ask for."""
        for _ in range(min(LOOK_EVERY, max(row.last for row in self.live.values()) - self.steps)):
            self.desk.graphs(self.desk.step, self.slots, window_of(self._longest() + 1, self.desk.need.columns))
            self.steps += 1

    def look(self, decode: Callable[[list[int]], str]) -> None:
        """Ask the device who goes on: the only time that the host waits for it."""
        draws, job_B = self.desk.draws, self.desk.job_B[: self.slots]
        draws.settle(job_B, decode)
        alive = draws.alive_N[job_B].tolist()
        self.live = {slot: row for slot, row in self.live.items() if alive[slot]}

    def shrink(self) -> None:
        """Go on with fewer slots if that many are not needed any more."""
        size = self._size(len(self.live))
        if size < self.slots:
            idle = [slot for slot in range(self.slots) if slot not in self.live]
            rows = [*self.live, *idle][:size]
            self.desk.keep(rows, min(self._longest() + 1, self.desk.need.columns))
            self.live = {rows.index(slot): row for slot, row in self.live.items()}
            self.slots = size

    def _longest(self) -> int:
        return max(row.offset for row in self.live.values()) + self.steps

    def _size(self, n: int) -> int:
        sizes = self.desk.sizes
        return next((large for large, small in pairwise(sizes) if small < n), sizes[-1])
