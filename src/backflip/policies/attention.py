"""Attention for training and scoring on a CPU, given to transformers through its public attention interface.

PyTorch's fused kernel for CPUs cuts its work into products so small that oneDNN, which makes everything else faster (see
`maths.matmul`), slows it down threefold. So while oneDNN is in use, short texts take the plain three steps, whose products
are large enough, and long ones keep the fused kernel with the switch turned back around it, forwards and backwards. Outside
of that, on GPUs and in half precision this is transformers' own fused attention.

Legend: B rows, H heads, L query positions, S key positions, D head size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from backflip.maths import matmul

NAME = "backflip"
SHORT = 192
"""Longest text, in tokens, for which the plain steps win."""


def adopt(model: Any) -> None:
    """Let a transformers model attend this way, if it is one that leaves the choice."""
    can = getattr(model, "_can_set_attn_implementation", None)
    if can is not None and getattr(model.config, "_attn_implementation", None) == "sdpa" and can():
        model.set_attn_implementation(NAME)


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, dropout: float = 0.0,
    scaling: float | None = None, is_causal: bool | None = None, **options: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Softmax attention of (B, H, L, D) on (B, ≤H, S, D): (B, L, H, D)."""
    plain = not dropout and all(value is None for name, value in options.items() if name in ("softcap", "position_bias", "s_aux"))
    if not (matmul.enabled() and plain and query.dtype == torch.float32 and query.device.type == "cpu"):
        return _fused(module, query, key, value, attention_mask, dropout, scaling, is_causal, options)
    n_queries, n_keys = query.shape[2], key.shape[2]
    odd = n_queries not in (1, n_keys) if attention_mask is None else attention_mask.dtype != torch.bool
    if odd or max(n_queries, n_keys) > SHORT:
        return _guarded(module, query, key, value, attention_mask, scaling, is_causal, options)
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    groups = query.shape[1] // key.shape[1]
    # The query heads that share a key head stand below each other, so that each key is read once.
    stacked = query.reshape(*key.shape[:2], groups * n_queries, query.shape[-1])
    scores = stacked * (query.shape[-1] ** -0.5 if scaling is None else scaling) @ key.transpose(2, 3)
    if attention_mask is None and causal and n_queries > 1:
        attention_mask = torch.ones(n_queries, n_keys, dtype=torch.bool).tril()[None, None]
    if attention_mask is not None:
        # Not −∞: a padded query that may see nothing would be NaN, and its gradient with it.
        allowed = attention_mask if groups == 1 else attention_mask.repeat(1, 1, groups, 1)
        scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
    attended = (scores.softmax(-1) @ value).reshape(*query.shape[:3], value.shape[-1])
    return attended.transpose(1, 2), None


def _fused(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float, scaling: float | None,
    is_causal: bool | None, options: dict[str, Any],
) -> tuple[Tensor, None]:  # fmt: skip
    attended, _ = sdpa_attention_forward(
        module, query, key, value, mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **options
    )
    return attended, None


def _guarded(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None,
    is_causal: bool | None, options: dict[str, Any],
) -> tuple[Tensor, None]:  # fmt: skip
    """The fused kernel by the stock library, in the backward pass too."""
    matmul.switch(False)
    try:
        attended, _ = _fused(module, query, key, value, mask, 0.0, scaling, is_causal, options)
    finally:
        matmul.switch(True)
    kernel = _kernel(attended.grad_fn)
    if kernel is not None:
        kernel.register_prehook(lambda gradients: matmul.switch(False))
        kernel.register_hook(lambda inputs, outputs: matmul.switch(True))
    return attended, None


def _kernel(node: Any) -> Any:
    """The fused kernel's own place in the backward graph, below the reshaping that follows it; None without one."""
    while node is not None and "Attention" not in type(node).__name__:
        node = node.next_functions[0][0] if node.next_functions else None
    return node


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
