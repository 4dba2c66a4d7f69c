"""Masked sums, the averaging of losses, whitening, and log-probabilities of tokens.

Shapes: B rows, T tokens (padded), V vocabulary. A mask is 1 (or True) on response tokens and 0 elsewhere. What
stands under a 0 is never read, not even when it is NaN, and receives a zero gradient.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Averaging = Literal["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"]

# Added to the counts of unmasked entries, as published implementations do: the mean of nothing is 0, and golden
# numbers agree to 1e-9. In float32 it changes no count but 0. The denominators of losses are exact.
COUNT_EPS = 1e-8


def check_shapes(**tensors: Tensor) -> None:
    """Raise ValueError, naming each tensor and its shape, unless all have the same one."""
    if len({tuple(t.shape) for t in tensors.values()}) > 1:
        shapes = ", ".join(f"{name} {tuple(t.shape)}" for name, t in tensors.items())
        raise ValueError(f"these must have the same shape: {shapes}")


def keep(x: Tensor, mask: Tensor) -> Tensor:
    """`x` where the mask is on, exactly 0 elsewhere. `mask` broadcasts to `x`."""
    return torch.where(mask.bool(), x, torch.zeros((), dtype=x.dtype, device=x.device))


def masked_sum(x: Tensor, mask: Tensor) -> Tensor:
    """Σ x over the entries whose mask is on; a scalar."""
    check_shapes(x=x, mask=mask)
    return keep(x, mask).sum()


def masked_mean(x: Tensor, mask: Tensor, *, denominator: Tensor | float | None = None) -> Tensor:
    """Σ x over the unmasked entries, divided by their number (+ 1e-8) or by `denominator`; 0 when all are masked."""
    if denominator is None:
        denominator = mask.bool().to(x.dtype).sum() + COUNT_EPS
    return masked_sum(x, mask) / denominator


def masked_var(x: Tensor, mask: Tensor, *, unbiased: bool = False) -> Tensor:
    """The mean squared distance of the n unmasked entries from their mean, times n/(n−1) if `unbiased`."""
    variance = masked_mean((keep(x, mask) - masked_mean(x, mask)).square(), mask)
    if not unbiased:
        return variance
    n = mask.bool().to(x.dtype).sum()
    return variance * n / (n - 1.0).clamp(min=1.0)


def whiten(x_BT: Tensor, mask_BT: Tensor, *, shift_mean: bool = True, unbiased: bool = False, eps: float = 1e-8) -> Tensor:
    """(x − mean) · rsqrt(var + eps) over the unmasked entries; 0 under the mask.

    With `shift_mean=False` the mean is added back, so that only the scale changes: Ziegler et al. (1909.08593)
    whiten rewards so and advantages with the shift, both with the biased variance.

    Raises ValueError when fewer than two entries are unmasked: one number has no variance.
    """
    check_shapes(x_BT=x_BT, mask_BT=mask_BT)
    n = int(mask_BT.bool().sum())
    if n < 2:
        raise ValueError(f"whitening needs at least two unmasked entries to have a variance, and there are {n}")
    mean = masked_mean(x_BT, mask_BT)
    white_BT = (keep(x_BT, mask_BT) - mean) * torch.rsqrt(masked_var(x_BT, mask_BT, unbiased=unbiased) + eps)
    return keep(white_BT if shift_mean else white_BT + mean, mask_BT)


def denominator(mask_BT: Tensor, averaging: Averaging, *, norm_length: int | None = None) -> Tensor:
    """What `aggregate` divides by, as a scalar: count it once over the WHOLE step, before the first forward.

    token-mean               response tokens in the batch
    seq-mean-token-mean      rows with at least one response token
    seq-mean-token-sum       the same
    seq-mean-token-sum-norm  the same, times `norm_length`

    `norm_length` is the constant length of Dr. GRPO (2503.20783), usually the longest response allowed. It is asked
    for and not read from the mask, because the width of a padded batch is an accident and must not move a loss.
    At least 1, so that a batch without any response token has loss 0.

    Raises ValueError for an unknown averaging, or `seq-mean-token-sum-norm` without `norm_length`.
    """
    on_BT = mask_BT.bool()
    if averaging == "token-mean":
        return on_BT.sum().clamp(min=1)
    rows = on_BT.any(dim=-1).sum().clamp(min=1)
    if averaging in ("seq-mean-token-mean", "seq-mean-token-sum"):
        return rows
    if averaging == "seq-mean-token-sum-norm":
        if norm_length is None or norm_length < 1:
            raise ValueError("averaging 'seq-mean-token-sum-norm' divides by a fixed length; give norm_length ≥ 1")
        return rows * norm_length
    raise ValueError(f"unknown averaging {averaging!r}; use one of {', '.join(Averaging.__args__)}")  # type: ignore[attr-defined]


_count = denominator


def aggregate(loss_BT: Tensor, mask_BT: Tensor, averaging: Averaging, *, denominator: Tensor | float | None = None) -> Tensor:
    """One scalar from a loss per token.

    token-mean               Σ_bt l_bt / denominator
    seq-mean-token-mean      Σ_b (Σ_t l_bt / (|o_b| + 1e-8)) / denominator
    seq-mean-token-sum       Σ_bt l_bt / denominator
    seq-mean-token-sum-norm  Σ_bt l_bt / denominator

    Every sum runs over response tokens. When a batch is split by rows into micro-batches and each passes the
    denominator of the whole (see the function `denominator`), the losses and the gradients of the parts add up to
    those of the whole, whatever the split and the padding. Without one, it is counted from this mask.
    """
    check_shapes(loss_BT=loss_BT, mask_BT=mask_BT)
    if denominator is None:
        denominator = _count(mask_BT, averaging)
    kept_BT = keep(loss_BT, mask_BT)
    if averaging == "seq-mean-token-mean":
        kept_BT = kept_BT / (mask_BT.bool().to(kept_BT.dtype).sum(dim=-1, keepdim=True) + COUNT_EPS)
    return kept_BT.sum() / denominator


def token_logps(logits_BTV: Tensor, tokens_BT: Tensor, *, temperature: float = 1.0) -> Tensor:
    """log p(token) in nats under softmax(logits / temperature), shape (B, T).

    `logits_BTV[:, t]` are those that predict `tokens_BT[:, t]`: shifting by one is the caller's. Divide by the
    temperature that sampled the tokens, or the ratio to the sampler is not 1 (Ziegler et al., detail 10 of the
    N Implementation Details). Half-precision logits are raised to float32 first.
    """
    if logits_BTV.shape[:-1] != tokens_BT.shape:
        raise ValueError(f"logits {tuple(logits_BTV.shape)} do not fit tokens {tuple(tokens_BT.shape)}")
    scaled_BTV = _scaled(logits_BTV, temperature)
    chosen_BT = scaled_BTV.gather(-1, tokens_BT.unsqueeze(-1)).squeeze(-1)
    return chosen_BT - scaled_BTV.logsumexp(dim=-1)


def token_entropy(logits_BTV: Tensor, *, temperature: float = 1.0) -> Tensor:
    """H = −Σ_v p log p in nats of softmax(logits / temperature), shape (B, T). Logits may be −inf."""
    logp_BTV = _scaled(logits_BTV, temperature).log_softmax(dim=-1)
    finite_BTV = logp_BTV.masked_fill(logp_BTV == -torch.inf, 0.0)
    return -(logp_BTV.exp() * finite_BTV).sum(dim=-1)


def _scaled(logits_BTV: Tensor, temperature: float) -> Tensor:
    if not temperature > 0.0:
        raise ValueError(f"temperature must be above 0, not {temperature}")
    if logits_BTV.dtype in (torch.float16, torch.bfloat16):
        logits_BTV = logits_BTV.float()
    return logits_BTV if temperature == 1.0 else logits_BTV / temperature
