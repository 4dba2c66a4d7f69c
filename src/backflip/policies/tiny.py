"""A language model small enough to train from nothing on a laptop: ~1M parameters, tokenizer included.

An ordinary Llama with an ordinary fast tokenizer, saved as an ordinary Hugging Face folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from backflip.policies.language import LanguagePolicy
from backflip.seeds import Seeds

PAD, EOS = "<|pad|>", "<|end|>"


@dataclass(frozen=True, kw_only=True)
class TinyShape:
    """Width and depth of a tiny Llama; the default has 0.9M parameters at a vocabulary of 512."""

    vocab_size: int = 512
    hidden_size: int = 128
    intermediate_size: int = 352
    layers: int = 4
    heads: int = 4
    context: int = 512


def train_tokenizer(texts: Iterable[str], vocab_size: int = 512) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer learned from `texts`: any text is representable and decodes back exactly."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _fast(tokenizer)


def word_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer that knows just these words, each one token, and reads a text by taking the longest that fits.

    A text that holds anything else is refused by the tokenizer itself.
    """
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate((PAD, EOS, *words))}))
    longest_first = sorted(words, key=len, reverse=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("|".join(map(re.escape, longest_first))), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return _fast(tokenizer)


def _fast(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS, clean_up_tokenization_spaces=False)


def tiny_policy(
    texts: Iterable[str] = (), *, seeds: Seeds, shape: TinyShape | None = None, name: str = "tiny",
    tokenizer: PreTrainedTokenizerFast | None = None,
) -> LanguagePolicy:  # fmt: skip
    """An untrained policy whose tokenizer fits `texts`, or is the one given.

    Weights are N(0, 1/√hidden_size) (norms 1), drawn from the generator named "tiny" of `seeds`.
    """
    shape = shape or TinyShape()
    tokenizer = tokenizer or train_tokenizer(texts, shape.vocab_size)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=shape.context,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    model = LlamaForCausalLM(config).float()
    generator = seeds.torch("tiny")
    std = shape.hidden_size**-0.5
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, std, generator=generator)
    return LanguagePolicy(model, tokenizer, name=name)
