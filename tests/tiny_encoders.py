"""Tiny encoders (BERT, RoBERTa, DeBERTa) with a tokenizer of characters, as transformers would save them."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch


def encoder_tokenizer() -> Any:
    """One token a character, and BERT's frame around a pair."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = {word: i for i, word in enumerate([*special, *string.printable])}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", words["[CLS]"]), ("[SEP]", words["[SEP]"])],
    )  # fmt: skip
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip


def save_encoder(folder: Path, kind: str = "bert", *, classifier: bool = False, seed: int = 0) -> Path:
    """A model folder: an encoder pretrained on nothing, or a reward model made of it."""
    import transformers

    tokenizer = encoder_tokenizer()
    common = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 48, "max_position_embeddings": 64, "pad_token_id": 0,
    }  # fmt: skip
    configs = {
        "bert": transformers.BertConfig(**common),
        "roberta": transformers.RobertaConfig(**common, type_vocab_size=1, bos_token_id=2, eos_token_id=3),
        "deberta": transformers.DebertaV2Config(**common, type_vocab_size=0),
    }
    config = configs[kind]
    if classifier:
        config.num_labels = 1
    auto = transformers.AutoModelForSequenceClassification if classifier else transformers.AutoModelForMaskedLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = auto.from_config(config).float().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(0.0, 0.2)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
