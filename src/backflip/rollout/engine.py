"""The rollout engine for the Llama family: one preallocated cache, rows that leave when they are done, others that enter.

    columns   0 …        lo                         c           capacity
    slot 0               . q q q q q a a a a a a a a|
    slot 1               . . . . . . . . q q q a a a|          (entered later)
    slot 2               q q q q q q q a a a a a a a|

All rows that are alive write their next key and value into the same column c, so a write is a slice and attention one
batched product over [lo, c]. A prompt that enters late is laid so that it ends at c − 1, hiding what stood there before it;
positions are counted from each row's own first column. A prompt asked for several times is read once and its keys and
values are copied to the slots of its group. When the columns run out the live window moves back to the front.

Legend: B slots in use, U prompts that enter, Q their columns, E hidden size, K key-value heads, G query heads for each of
them, D head size, C columns, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from backflip.maths import matmul
from backflip.policies.llama import LlamaForward
from backflip.policies.ragged import filled
from backflip.policies.tokens import pad, positions
from backflip.policies.transfer import send
from backflip.rollout.draws import Draws

READ_AT_ONCE = 4096
"""Tokens of prompts, padding included, in one forward pass: more are no faster and need memory."""


@torch.no_grad()
def run(forward: LlamaForward, queries: Sequence[Sequence[int]], draws: Draws, *, slots: int, device: torch.device) -> None:
    """Complete every query; what is drawn ends up in `draws`."""
    with matmul.stock():  # one-token attention is many tiny products; the large ones switch for themselves
        _Engine(forward, queries, draws, slots=min(slots, len(queries)), device=device).go()


@dataclass
class Cache:
    """Keys and values of every layer, (slots, K, C, D) each. On a CPU in float32 under half-precision weights: one-token
    attention is faster so and the sums lose nothing."""

    keys: list[Tensor]
    values: list[Tensor]

    @classmethod
    def empty(cls, forward: LlamaForward, slots: int, columns: int, device: torch.device) -> Cache:
        """Room for so many slots of so many columns, all zero."""
        dtype = torch.float32 if device.type == "cpu" else forward.dtype
        shape = (slots, forward.n_kv_heads, columns, forward.head_size)
        layers = range(len(forward.layers))
        return cls(*([torch.zeros(shape, dtype=dtype, device=device) for _ in layers] for _ in range(2)))

    def keep(self, rows: Tensor, low: int, high: int) -> None:
        """Only `rows` stay, moved to the front."""
        for tensor in (*self.keys, *self.values):
            tensor[: len(rows), :, low:high] = tensor[rows, :, low:high]

    def move(self, low: int, high: int, to: int) -> None:
        """Columns [low, high) move to the left, to `to`."""
        for tensor in (*self.keys, *self.values):
            tensor[:, :, to : to + high - low] = tensor[:, :, low:high].clone()


def distinct(queries: Sequence[Sequence[int]], device: torch.device, *, left: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The different ones among some queries, padded, with their mask, (U, Q) each, and which of them each query is."""
    unique = {ids: u for u, ids in enumerate(dict.fromkeys(map(tuple, queries)))}
    group = torch.tensor([unique[tuple(ids)] for ids in queries])
    ids_UQ, mask_UQ = pad(list(unique), fill=0, left=left)
    return send(ids_UQ, device), send(mask_UQ, device), send(group, device)


def fewer(n: int) -> int:
    """Slots for `n` rows when none wait: whole sixteenths, which products are quick with, and halves below."""
    return -(-n // 16) * 16 if n > 8 else 1 << (n - 1).bit_length()


def attend_one(q: Tensor, keys: Tensor, values: Tensor, hidden: Tensor) -> Tensor:
    """Softmax attention of one query a row, (B, H, D), on its window (B, K, C, D): (B, H·D). `hidden`, which broadcasts to
    (B, K, G, C), is −∞ where a row must not look and 0 elsewhere."""
    grouped = q.to(keys.dtype).view(len(q), keys.shape[1], -1, q.shape[-1])
    scores = (grouped * q.shape[-1] ** -0.5) @ keys.transpose(2, 3) + hidden
    attended: Tensor = scores.float().softmax(-1).to(values.dtype) @ values
    return attended.flatten(1).to(q.dtype)


@dataclass
class _Engine:
    forward: LlamaForward
    queries: Sequence[Sequence[int]]
    draws: Draws
    slots: int
    device: torch.device
    waiting: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        longest = max(map(len, self.queries))
        limit = self.draws.settings.max_new_tokens
        # Room for a whole row, and when rows wait for as much again, so that moving back is rare.
        self.front = longest
        self.capacity = longest + limit + (max(limit, longest) if len(self.queries) > self.slots else 0)
        self.cos, self.sin = self.forward.angles(longest + limit, self.device)
        self.cache = Cache.empty(self.forward, self.slots, self.capacity, self.device)
        self.hidden_BC = torch.full((self.slots, self.capacity), -torch.inf, device=self.device)

    def go(self) -> None:
        n, forward = len(self.queries), self.forward
        self.column = self.front
        self.start_B = torch.zeros(self.slots, dtype=torch.long, device=self.device)
        self.job_B = torch.zeros(self.slots, dtype=torch.long, device=self.device)
        at_once = max(1, READ_AT_ONCE // max(map(len, self.queries)))
        first = [self.admit(slots) for slots in torch.split(torch.arange(self.slots, device=self.device), at_once)]
        token_B = self.draws.take(self.job_B, torch.cat(first))
        while True:
            alive_B = self.draws.alive_N[self.job_B]
            n_dead = len(alive_B) - int(alive_B.sum())
            if n_dead:
                # A row that is done idles at the present column, so that it holds nobody's window open.
                self.start_B = self.start_B.where(alive_B, torch.full_like(self.start_B, self.column))
                if self.waiting < n and (n_dead >= max(1, self.slots // 8) or n_dead == len(alive_B)):
                    # So many at a time and no more: a few shapes of product are compiled once, many are compiled all day.
                    dead = (~alive_B).nonzero().squeeze(1)[: min(n - self.waiting, max(1, self.slots // 8))]
                    first_BV = self.admit(dead)
                    token_B[dead] = self.draws.take(self.job_B[dead], first_BV)
                    continue
                if n_dead == len(alive_B):
                    return
                if self.waiting == n and (size := fewer(len(alive_B) - n_dead)) < len(alive_B):
                    token_B = self.shrink(alive_B, token_B, size)
            if self.column == self.capacity:
                self.rewind()
            token_B = self.draws.take(self.job_B, forward.logits(self.decode(token_B)))

    def admit(self, slots: Tensor) -> Tensor:
        """The next waiting queries take `slots`; the logits of their first new token come back.

        Their real tokens are read in one line, and only attention lays them out in a rectangle.
        """
        forward, first = self.forward, self.waiting
        entering = self.queries[first : first + len(slots)]
        self.waiting += len(entering)
        ids_UQ, mask_UQ, group = distinct(entering, self.device, left=True)
        width = ids_UQ.shape[1]
        low = self.column - width
        place_N, line_UQ = self.line(mask_UQ)
        cos, sin = (table[positions(mask_UQ).flatten()[place_N]].unsqueeze(1) for table in (self.cos, self.sin))
        causal = torch.ones(width, width, dtype=torch.bool, device=self.device).tril()
        # A padded query sees itself: a softmax over nothing would be NaN, and NaN times a mask stays NaN.
        seen = causal & (mask_UQ[:, None, None, :].bool() | torch.eye(width, dtype=torch.bool, device=self.device))
        x = forward.embed(ids_UQ.flatten()[place_N])
        last_U = line_UQ[:, -1]
        for layer, keys, values in zip(forward.layers, self.cache.keys, self.cache.values, strict=True):
            q, k, v = (t[line_UQ].transpose(1, 2) for t in forward.heads(layer, x, cos, sin))
            keys[slots, :, low : self.column] = k[group].to(keys.dtype)
            values[slots, :, low : self.column] = v[group].to(values.dtype)
            attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=q.shape[1] != k.shape[1])
            attended = attended.transpose(1, 2).flatten(2)
            if layer is forward.layers[-1]:  # of which nobody asks for more than the last token's
                x = forward.close(layer, x[last_U], attended[:, -1])
            else:
                x = forward.close(layer, x, attended.flatten(0, 1)[place_N])
        self.job_B[slots] = torch.arange(first, first + len(entering), device=self.device)
        self.start_B[slots] = self.column - mask_UQ.sum(1)[group]
        self.hide(slots)
        return forward.logits(x)[group]

    def line(self, mask_UQ: Tensor) -> tuple[Tensor, Tensor]:
        """The places (N,) of a rectangle's real tokens, and where in their line each place finds its own, (U, Q); padding finds
        a token that nobody looks at."""
        place_N = mask_UQ.flatten().nonzero().squeeze(1)
        line_UQ = (mask_UQ.flatten().cumsum(0) - 1).clamp_(min=0).view(mask_UQ.shape)
        if matmul.enabled():  # by a library that compiles a kernel for every length
            place_N = filled(place_N, 0)
        return place_N, line_UQ

    def decode(self, token_B: Tensor) -> Tensor:
        """Hidden states (B, E) after one more token in every slot."""
        forward, c = self.forward, self.column
        n, low = len(token_B), int(self.start_B.min())
        where_B = c - self.start_B
        upright = forward.dtype == torch.float32 and matmul.stands(n, forward.embedding.weight.shape[1])
        lay = matmul.erect if upright else (lambda x: x)
        cos, sin = (lay(table[where_B]).unsqueeze(1) for table in (self.cos, self.sin))
        mask = self.hidden_BC[:n, None, None, low : c + 1]
        x = lay(forward.embed(token_B))
        for layer, keys, values in zip(forward.layers, self.cache.keys, self.cache.values, strict=True):
            q, k, v = forward.heads(layer, x, cos, sin)
            keys[:n, :, c] = k
            values[:n, :, c] = v
            attended = attend_one(q, keys[:n, :, low : c + 1], values[:n, :, low : c + 1], mask)
            x = forward.close(layer, x, attended)
        self.column += 1
        return x

    def shrink(self, alive_B: Tensor, token_B: Tensor, size: int) -> Tensor:
        """Go on with `size` slots: of the rows that are under way, and of some that are done where those are fewer."""
        rows = (~alive_B).sort(stable=True).indices[:size]
        self.cache.keep(rows, int(self.start_B[rows].min()), self.column)
        self.hidden_BC[: len(rows)] = self.hidden_BC[rows]
        self.start_B, self.job_B = self.start_B[rows], self.job_B[rows]
        return token_B[rows]

    def rewind(self) -> None:
        """Move the live window back, as far as the longest prompt lets it."""
        low = int(self.start_B.min())
        to = max(0, self.front - (self.column - low))
        self.cache.move(low, self.column, to)
        self.start_B = self.start_B - (low - to)
        self.column -= low - to
        self.hide(slice(len(self.start_B)))

    def hide(self, slots: Tensor | slice) -> None:
        """Nobody sees what stands before a row's first column."""
        columns_C = torch.arange(self.capacity, device=self.device)
        self.hidden_BC[slots] = torch.where(columns_C < self.start_B[slots].unsqueeze(1), -torch.inf, 0.0)
