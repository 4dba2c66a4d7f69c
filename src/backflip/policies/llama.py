"""The forward pass of the Llama family on a policy's own modules, cut where an engine needs to get in.

Llama, Mistral, Qwen2, Qwen3 and their like (SmolLM, TinyLlama, our tiny model) differ in three places only: biases in the
projections, a norm on queries and keys, tied or untied heads. `LlamaForward` reads the modules of the transformers model and
copies no weight, so whatever training changed is what the next token is drawn from. Another model gets None from `of` and
goes through transformers itself.

Legend: ... any leading shape, E hidden size, H heads, K key-value heads, D head size, P positions, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from backflip.maths import kernels, matmul

FAMILY = ("llama", "mistral", "qwen2", "qwen3")
# Kinds of rotary embedding whose angles depend on the position alone, not on how long the text has become.
STATIC_ROPE = ("default", "linear", "llama3", "yarn")

Map = Callable[[Tensor], Tensor]
Maps = Callable[[Tensor], Sequence[Tensor]]
"""Several projections of the same input."""


@dataclass(frozen=True)
class Layer:
    """The maps of one decoder layer."""

    norm: Map
    qkv: Maps
    q_norm: Map | None
    k_norm: Map | None
    o: Map
    mlp_norm: Map
    gate_up: Maps
    down: Map


class LlamaForward:
    """Embedding, layers and head of one model, as functions of its present weights.

    With a `dtype` other than the model's own, matrix products are made in it, while hidden states between layers, norms,
    rotations and attention keep the model's precision. The matrices are cast once, here, so such a forward pass is to be
    made anew after every update; gradients flow through the cast. `frozen` says that nobody will ask for gradients, so that
    adapted projections may be copied as well, and `refresh` can take the place of making it anew. `packed` copies go into the
    order that products of few rows want, where the machine has one, and cannot be refreshed.
    """

    def __init__(self, model: Any, *, dtype: torch.dtype | None = None, frozen: bool = False, packed: bool = False) -> None:
        whole = unwrapped(model)
        body, config = whole.model, whole.config
        own = body.embed_tokens.weight.dtype
        self.dtype = dtype or own
        cast = None if self.dtype == own else _Cast(self.dtype, frozen, packed)
        self.copies = [] if cast is None else cast.copies
        self.n_heads: int = config.num_attention_heads
        self.n_kv_heads: int = config.num_key_value_heads
        self.head_size: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.rotary = body.rotary_emb
        self.embedding: Any = body.embed_tokens
        self.layers = [_layer(layer, cast) for layer in body.layers[: config.num_hidden_layers]]
        self.norm = _norm(body.norm, cast)
        # A reward model has a head of its own, which is not asked for here.
        self.head_module: Any = getattr(whole, "lm_head", None)
        self.head = None if self.head_module is None else _linear(self.head_module, cast)
        self.recomputes = bool(getattr(body, "gradient_checkpointing", False))

    @torch.no_grad()
    def refresh(self) -> None:
        """Take the present weights into the copies of a frozen forward pass, which stay where they are in memory."""
        for ours, theirs in self.copies:
            ours.copy_(theirs)

    @classmethod
    def ambient(cls, model: Any) -> LlamaForward:
        """The forward pass in the precision that `torch.autocast` asks for around this call."""
        device = unwrapped(model).model.embed_tokens.weight.device.type
        return cls(model, dtype=torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None)

    @staticmethod
    def fits(model: Any) -> bool:
        """Whether the arithmetic of `model` is the one written here."""
        whole = unwrapped(model)
        config: Any = getattr(whole, "config", None)
        return (
            getattr(config, "model_type", None) in FAMILY
            and type(whole).__name__.endswith(("ForCausalLM", "ForSequenceClassification"))
            and config.hidden_act == "silu"
            and (config.rope_parameters or {}).get("rope_type", "default") in STATIC_ROPE
            and _window(config) >= config.max_position_embeddings
        )

    def angles(self, n_positions: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """cos and sin of the rotary embedding at positions 0 … n − 1: (P, D) each, in float32."""
        where = torch.arange(n_positions, device=device).unsqueeze(0)
        cos, sin = self.rotary(torch.empty(0, dtype=torch.float32, device=device), where)
        return cos[0], sin[0]

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids (...) → hidden states (..., E)."""
        hidden: Tensor = self.embedding(ids)
        return hidden

    def heads(self, layer: Layer, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries (..., H, D), rotated keys and values (..., K, D) of hidden states (..., E).

        `cos` and `sin` are (..., 1, D), those of each token's position.
        """
        y = layer.norm(x)
        q, k, v = (z.view(*y.shape[:-1], -1, self.head_size) for z in layer.qkv(y))
        if layer.q_norm is not None and layer.k_norm is not None:
            q, k = layer.q_norm(q), layer.k_norm(k)
        return kernels.rotate(q, cos, sin).to(x.dtype), kernels.rotate(k, cos, sin).to(x.dtype), v.to(x.dtype)

    def close(self, layer: Layer, x: Tensor, attended: Tensor) -> Tensor:
        """The rest of the layer: output projection of (..., H·D), residual, feed-forward, residual."""
        x = x + layer.o(attended)
        return x + layer.down(kernels.swiglu(*layer.gate_up(layer.mlp_norm(x))))

    def logits(self, x: Tensor) -> Tensor:
        """Hidden states (..., E) → logits (..., V) in float32 at least."""
        assert self.head is not None, "a reward model has no logits"
        y = self.head(self.norm(x))
        return y.to(torch.promote_types(y.dtype, torch.float32))


def unwrapped(model: Any) -> Any:
    """The model itself, without the adapter around it."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


def _window(config: Any) -> float:
    """How many tokens back the model looks; a shorter window than the context needs another mask than ours."""
    window = getattr(config, "sliding_window", None)
    if config.model_type == "mistral":
        return window or float("inf")
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return float("inf") if kinds == {"full_attention"} else (window or 0)


@dataclass(frozen=True)
class _Cast:
    """The precision of products, where it is not the weights' own, whether copies may be made for it and packed, and the copies
    so far that are not packed, each beside its original."""

    dtype: torch.dtype
    frozen: bool
    packed: bool = False
    copies: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def of(self, x: Tensor) -> Tensor:
        """`x` in this precision."""
        if not self.frozen:
            return x.to(self.dtype)
        self.copies.append((x.detach().to(self.dtype), x.detach()))
        return self.copies[-1][0]

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """A copy of all of them in this precision, one below the other."""
        whole = torch.cat([part.detach().to(self.dtype) for part in parts])
        self.copies.extend(zip(whole.split_with_sizes([len(part) for part in parts]), (p.detach() for p in parts), strict=True))
        return whole


def _layer(layer: Any, cast: _Cast | None) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    q_norm, k_norm = (getattr(attention, name, None) for name in ("q_norm", "k_norm"))
    return Layer(
        norm=_norm(layer.input_layernorm, cast),
        qkv=_beside([attention.q_proj, attention.k_proj, attention.v_proj], cast),
        q_norm=_norm(q_norm, cast) if q_norm is not None else None,
        k_norm=_norm(k_norm, cast) if k_norm is not None else None,
        o=_linear(attention.o_proj, cast),
        mlp_norm=_norm(layer.post_attention_layernorm, cast),
        gate_up=_beside([mlp.gate_proj, mlp.up_proj], cast),
        down=_linear(mlp.down_proj, cast),
    )


def _beside(modules: Sequence[nn.Module], cast: _Cast | None) -> Maps:
    """The maps of projections that read the same input. Where copies are made anyway they stand in one matrix, for one large
    product costs a step of decoding less than three small ones."""
    plain = [module for module in modules if type(module) is nn.Linear]
    biased = [module.bias is not None for module in plain]
    if cast is None or not cast.frozen or len(plain) < len(modules) or any(biased) != all(biased):
        maps = [_linear(module, cast) for module in modules]
        return lambda x: [f(x) for f in maps]
    bias = cast.joined([module.bias for module in plain]) if all(biased) else None
    sizes, parts = [module.out_features for module in plain], [module.weight for module in plain]
    if cast.packed and (tight := matmul.packed(torch.cat([part.detach().to(cast.dtype) for part in parts]))) is not None:
        return lambda x: matmul.packed_linear(x.to(cast.dtype), tight, bias).split_with_sizes(sizes, -1)
    weight = cast.joined(parts)
    return lambda x: matmul.linear(x.to(cast.dtype), weight, bias).split_with_sizes(sizes, -1)


def _linear(module: nn.Module, cast: _Cast | None) -> Map:
    """The map of a projection. A plain one is called without its module's bookkeeping; an adapted one as it is."""
    if type(module) is not nn.Linear:
        return _module(module, cast)
    weight: Tensor = module.weight
    bias: Tensor | None = module.bias
    if cast is None:
        return lambda x: matmul.linear(x, weight, bias)
    bias = None if bias is None else cast.of(bias)
    if cast.packed and (tight := matmul.packed(weight.detach().to(cast.dtype))) is not None:
        return lambda x: matmul.packed_linear(x.to(cast.dtype), tight, bias)
    weight = cast.of(weight)
    return lambda x: matmul.linear(x.to(cast.dtype), weight, bias)


def _norm(module: Any, cast: _Cast | None) -> Map:
    """Root-mean-square norm (Zhang & Sennrich 2019), the statistics in float32; what it gives goes into a product."""
    weight: Tensor = module.weight
    eps: float = module.variance_epsilon
    return lambda x: kernels.rms_norm(x, weight, eps, dtype=None if cast is None else cast.dtype)


def _module(module: nn.Module, cast: _Cast | None) -> Map:
    """An adapted projection in another precision: a copy of it, or, where its gradient is wanted, automatic mixed precision."""
    if cast is None:
        return module
    if cast.frozen:
        copied = copy.deepcopy(module).to(cast.dtype)
        cast.copies.extend(zip(copied.parameters(), module.parameters(), strict=True))
        return lambda x: copied(x.to(cast.dtype))

    def mixed(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, cast.dtype):
            y: Tensor = module(x)
        return y

    return mixed
