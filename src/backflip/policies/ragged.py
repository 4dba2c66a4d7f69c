"""Reading many texts at once without their padding: what a policy thinks of given tokens, for training and for scoring.

The real tokens of all rows stand in one line, so projections, norms and feed-forwards never see padding; only attention lays
them out in rectangles (on a GPU not even that, see `varlen`). A prompt that several rows share stands there once and its keys
and values serve all of them, forwards and backwards. In the last layer only the positions somebody asks for go beyond keys and
values.

Legend: N tokens in a line, W of them wanted, R rows of a rectangle, L its query columns, S its key columns, H heads, K
key-value heads, D head size, E hidden size, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from backflip.maths import matmul
from backflip.policies import varlen
from backflip.policies.attention import SHORT
from backflip.policies.llama import Layer, LlamaForward
from backflip.policies.tokens import TokenBatch
from backflip.policies.transfer import send


@dataclass(frozen=True)
class Block:
    """One rectangle of attention: which tokens of the line stand in which of its R·L query and R·S key places, and what must
    not be seen, added to the scores (None: everything after the query). Place R·L, or R·S, is nobody's: there stand the
    fillers that make every index of a rounded length."""

    rows: int
    queries: int
    keys: int
    query_tokens: Tensor
    query_places: Tensor
    key_tokens: Tensor
    key_places: Tensor
    mask_RLS: Tensor | None

    @classmethod
    def of(
        cls, shape: tuple[int, int, int], asking: tuple[Tensor, Tensor], seen: tuple[Tensor, Tensor], mask_RLS: Tensor | None,
        device: torch.device,
    ) -> Block:  # fmt: skip
        """From (tokens, places) of queries and of keys."""
        rows, queries, keys = shape
        return cls(
            rows=rows, queries=queries, keys=keys,
            query_tokens=send(filled(asking[0], 0), device), query_places=send(filled(asking[1], rows * queries), device),
            key_tokens=send(filled(seen[0], 0), device), key_places=send(filled(seen[1], rows * keys), device),
            mask_RLS=None if mask_RLS is None else send(mask_RLS, device),
        )  # fmt: skip


@dataclass(frozen=True)
class Line:
    """The tokens of many rows in one line: ids, positions, and the rectangles, or the spans, that they attend in."""

    ids_N: Tensor
    positions_N: Tensor
    blocks: tuple[Block, ...]
    spans: varlen.Spans | None = None


def rounded(n: int) -> int:
    """The next length of few significant digits, at most an eighth above n.

    oneDNN compiles a kernel for every shape it meets and the memory between them goes to pieces: over lines of all lengths
    it took a third longer and three times the memory. Of rounded lengths there are eight in every octave.
    """
    step = 1 << max(0, n.bit_length() - 4)
    return -(-n // step) * step


def filled(x: Tensor, filler: int) -> Tensor:
    """`x` (N,) at a rounded length, `filler` behind it."""
    return torch.cat([x, x.new_full((rounded(len(x)) - len(x),), filler)])


def line_of(rows: Sequence[Sequence[int]], device: torch.device) -> Line:
    """Rows of their own, one after the other."""
    ids, where, places, longest = _own(rows)
    if varlen.wanted(device):
        return _spanned(ids, where, ([len(row) for row in rows], [], []), device)
    tokens = torch.arange(len(ids))
    block = Block.of((len(rows), longest, longest), (tokens, places), (tokens, places), None, device)
    return Line(send(filled(ids, 0), device), send(filled(where, 0), device), (block,))


def _spanned(
    ids: Tensor, where: Tensor, lengths: tuple[Sequence[int], Sequence[int], Sequence[int]], device: torch.device
) -> Line:
    """A line that attends in spans: of prompts, of the prompts that responses belong to, of responses."""
    ids = filled(ids, 0)
    spans = varlen.Spans.of(*lengths, len(ids), device)
    return Line(send(ids, device), send(filled(where, 0), device), (), spans)


def _own(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Tensor, int]:
    """Ids, positions and places of rows one after the other, and the longest row."""
    lengths = [len(row) for row in rows]
    longest = max(lengths)
    where = torch.cat([torch.arange(n) for n in lengths])
    places = where + torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(lengths)) * longest
    return torch.tensor([i for row in rows for i in row], dtype=torch.long), where, places, longest


def grouped_line(
    prompts: Sequence[Sequence[int]], owner: Sequence[int], responses: Sequence[Sequence[int]], device: torch.device
) -> Line:
    """Every prompt once, then every response, which sees the prompt `owner` names and itself."""
    if varlen.wanted(device):
        ids = torch.tensor([i for row in (*prompts, *responses) for i in row], dtype=torch.long)
        after = [torch.arange(len(row)) + len(prompts[p]) for p, row in zip(owner, responses, strict=True)]
        lengths = [len(row) for row in prompts], owner, [len(row) for row in responses]
        return _spanned(ids, torch.cat([*(torch.arange(n) for n in lengths[0]), *after]), lengths, device)
    start = [0]
    for row in (*prompts, *responses):
        start.append(start[-1] + len(row))
    prompt_ids, prompt_where, prompt_places, wide = _own(prompts)
    n_prompts, long = len(prompts), max(map(len, responses))
    query_tokens, query_places, key_tokens, key_places, where = [], [], [], [], []
    mask = torch.full((len(responses), 1, long, wide + long), -torch.inf)
    mask[..., wide:] = torch.full((long, long), -torch.inf).triu(1)
    for r, (group, row) in enumerate(zip(owner, responses, strict=True)):
        begin, n = start[n_prompts + r], len(row)
        prompt = torch.arange(start[group], start[group + 1])
        own = torch.arange(begin, begin + n)
        query_tokens.append(own)
        query_places.append(torch.arange(n) + r * long)
        key_tokens += [prompt, own]
        key_places += [torch.arange(len(prompt)) + r * (wide + long), torch.arange(n) + r * (wide + long) + wide]
        where.append(torch.arange(n) + len(prompt))
        mask[r, :, :, : len(prompt)] = 0.0
    tokens = torch.arange(len(prompt_ids))
    first = Block.of((n_prompts, wide, wide), (tokens, prompt_places), (tokens, prompt_places), None, device)
    asking, seen = (torch.cat(query_tokens), torch.cat(query_places)), (torch.cat(key_tokens), torch.cat(key_places))
    second = Block.of((len(responses), long, wide + long), asking, seen, mask, device)
    ids = torch.cat([prompt_ids, torch.tensor([i for row in responses for i in row], dtype=torch.long)])
    positions = torch.cat([prompt_where, *where])
    return Line(send(filled(ids, 0), device), send(filled(positions, 0), device), (first, second))


def fits(model: Any) -> bool:
    """Whether `read` computes what `model` itself would: a Llama that drops nothing, on a CPU in full precision only."""
    if not LlamaForward.fits(model):
        return False
    weight = next(model.parameters())
    drops = model.training and getattr(model.config, "attention_dropout", 0.0) > 0
    full = weight.dtype in (torch.float32, torch.float64)
    return not drops and (varlen.wanted(weight.device) or (weight.device.type == "cpu" and full))


def read(forward: LlamaForward, line: Line, wanted_W: Tensor) -> Tensor:
    """The last hidden states, normed, of the wanted places in the line: (W, E), differentiable in the weights."""
    wanted, wanted_W = len(wanted_W), filled(wanted_W, 0)
    n_positions = int(line.positions_N.max()) + 1 if line.spans is None else line.spans.longest_k
    tables = forward.angles(n_positions, line.ids_N.device)
    cos, sin = (table[line.positions_N].unsqueeze(1) for table in tables)
    last = forward.layers[-1]

    def through(layer: Layer, x: Tensor) -> Tensor:
        q, k, v = forward.heads(layer, x, cos, sin)
        attended = _attended(q, k, v, line, forward.dtype)
        if layer is last:
            x, attended = x.index_select(0, wanted_W), attended.index_select(0, wanted_W)
        return forward.close(layer, x, attended)

    # Precision is the forward pass's own business: what stands around must not round attention or what is saved.
    with torch.autocast(line.ids_N.device.type, enabled=False):
        x = forward.embed(line.ids_N)
        for layer in forward.layers:
            recompute = forward.recomputes and torch.is_grad_enabled()
            x = checkpoint(through, layer, x, use_reentrant=False) if recompute else through(layer, x)
        return forward.norm(x)[:wanted]


def _attended(q: Tensor, k: Tensor, v: Tensor, line: Line, dtype: torch.dtype) -> Tensor:
    if line.spans is not None:
        return varlen.attend(q, k, v, line.spans, dtype)
    attended: Tensor = _Attention.apply(q, k, v, line.blocks)  # type: ignore[no-untyped-call]
    return attended


class _Attention(torch.autograd.Function):
    """Causal softmax attention of a line of tokens, in its rectangles: (N, H, D), (N, K, D), (N, K, D) → (N, H·D)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, blocks: tuple[Block, ...]) -> Tensor:
        n, heads, size = q.shape
        out = torch.zeros(n, heads * size, dtype=q.dtype, device=q.device)
        saved = []
        for block in blocks:
            queries = _lay(q, block.query_tokens, block.query_places, block.rows, block.queries, k.shape[1])
            keys, values = (_lay(t, block.key_tokens, block.key_places, block.rows, block.keys, k.shape[1]) for t in (k, v))
            result, kept = _attend(queries, keys, values, block)
            flat = _flat(result, heads)
            out.index_add_(0, block.query_tokens, flat.index_select(0, block.query_places).flatten(1))
            saved += [queries, keys, values, *kept]
        ctx.blocks, ctx.shapes = blocks, (q.shape, k.shape)
        ctx.save_for_backward(*saved)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        (n, heads, size), key_shape = ctx.shapes
        grad = grad.view(n, heads, size)
        grads = grad.new_zeros(n, heads, size), grad.new_zeros(key_shape), grad.new_zeros(key_shape)
        saved = list(ctx.saved_tensors)
        for block in ctx.blocks:
            n_kept = 2 if _fused(block) else 1
            queries, keys, values, *kept = saved[: 3 + n_kept]
            del saved[: 3 + n_kept]
            given = _lay(grad, block.query_tokens, block.query_places, block.rows, block.queries, key_shape[1])
            parts = _attend_backward(given, queries, keys, values, kept, block)
            grads[0].index_add_(0, block.query_tokens, _flat(parts[0], heads).index_select(0, block.query_places))
            for into, part in zip(grads[1:], parts[1:], strict=True):
                into.index_add_(0, block.key_tokens, _flat(part, key_shape[1]).index_select(0, block.key_places))
        return *grads, None


def _lay(x: Tensor, tokens: Tensor, places: Tensor, rows: int, columns: int, n_kv: int) -> Tensor:
    """Tokens of the line (N, H, D) in a rectangle: (R, K, H/K · columns, D), zero where nobody stands.

    The query heads that share a key head stand below each other, so that each key is read once.
    """
    heads, size = x.shape[1:]
    laid = x.new_zeros(rows * columns + 1, heads, size).index_copy_(0, places, x.index_select(0, tokens))
    return laid[:-1].view(rows, columns, n_kv, heads // n_kv, size).permute(0, 2, 3, 1, 4).reshape(rows, n_kv, -1, size)


def _flat(x: Tensor, heads: int) -> Tensor:
    """The rectangle (R, K, H/K · columns, D) as places (R · columns + 1, H, D), zero at nobody's."""
    rows, n_kv, length, size = x.shape
    groups = heads // n_kv
    flat = x.new_zeros(rows * (length // groups) + 1, heads, size)
    flat[:-1].view(rows, -1, n_kv, groups, size).copy_(x.view(rows, n_kv, groups, -1, size).permute(0, 3, 1, 2, 4))
    return flat


def _fused(block: Block) -> bool:
    return max(block.queries, block.keys) > SHORT


def _mask(block: Block, like: Tensor) -> Tensor:
    mask = block.mask_RLS
    if mask is None:
        mask = torch.full((1, 1, block.queries, block.keys), -torch.inf, device=like.device).triu(1)
    return mask.to(like.dtype)


def _attend(q: Tensor, k: Tensor, v: Tensor, block: Block) -> tuple[Tensor, list[Tensor]]:
    groups = q.shape[2] // block.queries
    scale = 1.0 / math.sqrt(q.shape[-1])
    mask = _mask(block, q)
    if _fused(block):
        return _kernel(q, k, v, mask, block, scale)
    scores = (q @ k.transpose(2, 3)).mul_(scale)
    scores.view(*q.shape[:2], groups, block.queries, block.keys).add_(mask.unsqueeze(2))
    chances = scores.softmax(-1)
    return chances @ v, [chances]


def _attend_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, kept: list[Tensor], block: Block
) -> tuple[Tensor, Tensor, Tensor]:
    scale = 1.0 / math.sqrt(q.shape[-1])
    if _fused(block):
        return _kernel_backward(grad, q, k, v, kept, block, scale)
    (chances,) = kept
    grad_v = chances.transpose(2, 3) @ grad
    grad_chances = grad @ v.transpose(2, 3)
    # Softmax: dS = P ∘ (dP − Σ dP ∘ P)
    grad_scores = torch._softmax_backward_data(grad_chances, chances, -1, chances.dtype).mul_(scale)
    return grad_scores @ k, grad_scores.transpose(2, 3) @ q, grad_v


def _heads_apart(x: Tensor, queries: int) -> Tensor:
    return x.reshape(x.shape[0], -1, queries, x.shape[-1])


def _kernel(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, block: Block, scale: float) -> tuple[Tensor, list[Tensor]]:
    """PyTorch's fused kernel, which never holds a whole row of scores, by the stock library."""
    groups = q.shape[2] // block.queries
    wide_k, wide_v = (t.repeat_interleave(groups, dim=1) for t in (k, v))
    with matmul.stock():
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            _heads_apart(q, block.queries), wide_k, wide_v, 0.0, False, attn_mask=mask, scale=scale
        )
    return out.reshape(q.shape), [out, lse]


def _kernel_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, kept: list[Tensor], block: Block, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    groups = q.shape[2] // block.queries
    wide_k, wide_v = (t.repeat_interleave(groups, dim=1) for t in (k, v))
    out, lse = kept
    with matmul.stock():
        grad_q, grad_k, grad_v = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            _heads_apart(grad, block.queries), _heads_apart(q, block.queries), wide_k, wide_v, out, lse, 0.0, False,
            attn_mask=_mask(block, q), scale=scale,
        )  # fmt: skip
    grad_k, grad_v = (t.reshape(*k.shape[:2], groups, *k.shape[2:]).sum(2) for t in (grad_k, grad_v))
    return grad_q.reshape(q.shape), grad_k, grad_v


def line_of_batch(batch: TokenBatch, device: torch.device) -> tuple[Line, Tensor]:
    """A token batch as a line, and the places (W,) whose hidden states chose its response tokens, row by row.

    Rows with equal prompts share them when that leaves less to read.
    """
    queries = _real(batch.query_BQ, batch.query_mask_BQ)
    responses = _real(batch.response_BT, batch.mask_BT)
    prompts = {ids: u for u, ids in enumerate(dict.fromkeys(map(tuple, queries)))}
    if 2 * len(prompts) <= len(queries):
        owner = [prompts[tuple(ids)] for ids in queries]
        # The last response token chooses nothing, so it need not be read.
        shortened = [row[:-1] or row for row in responses]
        line = grouped_line(list(prompts), owner, shortened, device)
        ends = torch.tensor([len(ids) for ids in prompts]).cumsum(0) - 1
        begin = int(ends[-1]) + 1
        wanted = []
        for group, row, given in zip(owner, responses, shortened, strict=True):
            wanted += [int(ends[group]), *range(begin, begin + len(row) - 1)][: len(row)]
            begin += len(given)
    else:
        rows = [[*query, *response[:-1]] for query, response in zip(queries, responses, strict=True)]
        line = line_of(rows, device)
        wanted, begin = [], 0
        for query, response, row in zip(queries, responses, rows, strict=True):
            wanted += range(begin + len(query) - 1, begin + len(query) - 1 + len(response))
            begin += len(row)
    return line, send(torch.tensor(wanted), device)


def _real(ids: Tensor, mask: Tensor) -> list[list[int]]:
    keep = mask.bool().tolist()
    return [[i for i, on in zip(row, rule, strict=True) if on] for row, rule in zip(ids.tolist(), keep, strict=True)]
