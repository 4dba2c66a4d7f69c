"""Tiny encoder–decoder models: a T5 and a BART, with a tokenizer that closes every text as theirs do."""

from __future__ import annotations

import functools
from typing import Any

import torch

from backflip.policies.language import LanguagePolicy
from tests.tiny_models import TEXTS

BOS = "<|start|>"


@functools.cache
def closing_tokenizer(begins: bool) -> Any:
    """A byte-level tokenizer that puts an end-of-text token behind every text and, if it `begins`, one before it."""
    from tokenizers import processors

    from backflip.policies.tiny import EOS, train_tokenizer

    words = train_tokenizer(TEXTS, 280)
    if begins:
        words.add_special_tokens({"bos_token": BOS})
    around = f"{BOS} $A {EOS}" if begins else f"$A {EOS}"
    named = [(EOS, words.eos_token_id)] + [(BOS, words.convert_tokens_to_ids(BOS))] * begins
    words.backend_tokenizer.post_processor = processors.TemplateProcessing(single=around, special_tokens=named)
    return words


def model_of(kind: str, size: int, *, pad: int, eos: int, seed: int = 0, dropout: float = 0.0) -> Any:
    """A T5 that starts from its padding token, or a BART that starts from its end-of-text token."""
    import transformers

    special = {"pad_token_id": pad, "eos_token_id": eos, "vocab_size": size}
    if kind == "t5":
        config = transformers.T5Config(
            d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=2, decoder_start_token_id=pad, dropout_rate=dropout,
            relative_attention_num_buckets=8, relative_attention_max_distance=16, **special,
        )  # fmt: skip
    else:
        shape = {f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in (("layers", 2), ("attention_heads", 2))}
        config = transformers.BartConfig(
            d_model=32, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=64, decoder_start_token_id=eos,
            bos_token_id=None, forced_eos_token_id=None, dropout=dropout, attention_dropout=0.0, **shape, **special,
        )  # fmt: skip
    model = transformers.AutoModelForSeq2SeqLM.from_config(config).float()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.3, generator=generator)
    return model


def tiny_seq2seq(kind: str, *, seed: int = 0, dropout: float = 0.0) -> LanguagePolicy:
    """A tiny policy of that kind: "t5" or "bart"."""
    words = closing_tokenizer(kind == "bart")
    model = model_of(kind, len(words), pad=words.pad_token_id, eos=words.eos_token_id, seed=seed, dropout=dropout)
    return LanguagePolicy(model, words, name=kind)
