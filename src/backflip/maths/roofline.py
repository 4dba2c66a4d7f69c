"""How long a job must take: the multiplications and additions nobody can avoid, and the bytes that must be read.

Counted is what a causal transformer of the Llama family has to do and no more: no padding, a prompt that several completions
share once, of causal attention only the pairs that see each other, in the last layer only the positions somebody asks for,
and of a completion's last token nothing, for it chooses nothing. A product of (m, k) and (k, n) is 2·m·k·n operations; the
backward pass of a product is two products of its size. Norms, rotations, softmax and the optimizer are left out.

    seconds ≥ flops / rate of products + bytes / rate of reading        (after Williams et al. 2009, "Roofline")

The two terms are added, not the larger taken: while one token per row is written, products wait for their weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Group(NamedTuple):
    """A prompt and the completions written after it, as lengths in tokens; a completion has at least one."""

    prompt: int
    responses: Sequence[int]


@dataclass(frozen=True)
class Work:
    """Floating-point operations, and bytes that must come from memory."""

    flops: float
    nbytes: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.nbytes + other.nbytes)

    def __mul__(self, times: float) -> Work:
        return Work(self.flops * times, self.nbytes * times)

    def seconds(self, *, gflops: float, read_gb_s: float) -> float:
        """The least time at so many 10⁹ operations and 10⁹ bytes a second."""
        return self.flops / gflops / 1e9 + self.nbytes / read_gb_s / 1e9


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes of a model: vocabulary V, hidden E, feed-forward F, layers, query heads H, key-value heads K, head size D."""

    vocabulary: int
    hidden: int
    feed_forward: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int

    @property
    def keys_and_values(self) -> int:
        """Weights of a layer's key and value projections: 2·E·K·D."""
        return 2 * self.hidden * self.kv_heads * self.head_size

    @property
    def layer(self) -> int:
        """Weights of a layer's matrices: 2·E·H·D + 2·E·K·D + 3·E·F."""
        return 2 * self.hidden * self.heads * self.head_size + self.keys_and_values + 3 * self.hidden * self.feed_forward

    @property
    def head(self) -> int:
        """Weights of the head: E·V."""
        return self.hidden * self.vocabulary

    @property
    def weights(self) -> int:
        """Weights of all matrices, those of a tied embedding once."""
        return self.layers * self.layer + self.head

    @property
    def pair(self) -> int:
        """Operations of one query that sees one key, in one layer: q·k and the weighted value, 4·H·D."""
        return 4 * self.heads * self.head_size


def _through(shape: Shape, tokens: float, pairs: float, wanted: float, wanted_pairs: float) -> float:
    """Operations of a forward pass in whose last layer and head only `wanted` of its tokens go beyond keys and values."""
    whole = (shape.layers - 1) * (2 * tokens * shape.layer + shape.pair * pairs)
    beyond = shape.layer - shape.keys_and_values + shape.head
    return whole + 2 * tokens * shape.keys_and_values + 2 * wanted * beyond + shape.pair * wanted_pairs


def _triangle(n: int) -> float:
    return n * (n + 1) / 2


def reading(shape: Shape, groups: Sequence[Group]) -> Work:
    """The forward pass that gives the log-probability of every token of every completion."""
    tokens = pairs = wanted = wanted_pairs = 0.0
    for prompt, responses in groups:
        read = [n - 1 for n in responses]
        seen = sum(n * prompt + _triangle(n) for n in read)
        tokens += prompt + sum(read)
        pairs += _triangle(prompt) + seen
        wanted += 1 + sum(read)
        wanted_pairs += prompt + seen
    return Work(_through(shape, tokens, pairs, wanted, wanted_pairs))


def learning(shape: Shape, groups: Sequence[Group]) -> Work:
    """Forward and backward pass over every completion: three times the forward pass."""
    return reading(shape, groups) * 3


def generation(shape: Shape, groups: Sequence[Group], *, itemsize: int, kv_itemsize: int) -> Work:
    """Reading the prompts, then a token at a time for the rows that have not ended.

    Every pass reads all weights, `itemsize` bytes each, and what the rows alive have of keys and values, `kv_itemsize` bytes
    each, also where a cache would hold them. All rows are under way together.
    """
    prompts = [group.prompt for group in groups]
    total = Work(
        _through(shape, sum(prompts), sum(map(_triangle, prompts)), len(prompts), sum(prompts)),
        shape.weights * itemsize,
    )
    rows = [(group.prompt, n) for group in groups for n in group.responses]
    kept = 2 * shape.layers * shape.kv_heads * shape.head_size * kv_itemsize
    for step in range(1, max(n for _, n in rows)):
        seen = [prompt + step for prompt, n in rows if n > step]
        flops = 2 * len(seen) * shape.weights + shape.layers * shape.pair * sum(seen)
        total += Work(flops, shape.weights * itemsize + kept * sum(seen))
    return total


def grpo_step(shape: Shape, groups: Sequence[Group], *, itemsize: int, kv_itemsize: int) -> Work:
    """A step of GRPO with a reference: write the completions, let the reference read them, learn from them once."""
    written = generation(shape, groups, itemsize=itemsize, kv_itemsize=kv_itemsize)
    return written + reading(shape, groups) + learning(shape, groups)
