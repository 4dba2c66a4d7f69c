"""What both sides of a benchmark work on: four sizes of model, prompts of mixed length, texts, pairs; the same files for both.

The models are small Llamas with random weights, trained for a few steps to end their texts after some forty tokens, so that
stop tokens cut completions to mixed lengths as they do in practice.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from backflip.policies.hub import pick_device
from backflip.policies.language import LanguagePolicy
from backflip.rewards.learned import RewardModel
from backflip.runs import Run
from backflip.seeds import Seeds
from backflip.settings import SFT, Optim
from backflip.train.sft import Example, sft

SIZES = {
    "XS": {"vocab_size": 512, "hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4, "num_attention_heads": 4},
    "S": {"vocab_size": 4096, "hidden_size": 320, "intermediate_size": 864, "num_hidden_layers": 6, "num_attention_heads": 5},
    "M": {"vocab_size": 16384, "hidden_size": 640, "intermediate_size": 1728, "num_hidden_layers": 10, "num_attention_heads": 10},
    # The shape of Qwen2-0.5B, for GPUs.
    "0.5B": {
        "vocab_size": 151936,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
    },
}
PROMPT_WORDS, RESPONSE_WORDS = (16, 48), (8, 64)
ENDING_STEPS = {"XS": 60, "S": 40, "M": 15, "0.5B": 15}


def material(folder: Path, size: str) -> Path:
    """The folder of one size, made once: model/, reward/, prompts.json, texts.json, pairs.json."""
    home = folder / size
    if (home / "done").exists():
        return home
    home.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    vocabulary = SIZES[size]["vocab_size"]

    def words(span: tuple[int, int]) -> str:
        return " ".join(f"w{rng.randrange(2, vocabulary)}" for _ in range(rng.randint(*span)))

    prompts = [words(PROMPT_WORDS) for _ in range(2048)]
    texts = [{"prompt": p + " ", "completion": words(RESPONSE_WORDS)} for p in prompts]
    pairs = [{"prompt": p + " ", "chosen": words(RESPONSE_WORDS), "rejected": words(RESPONSE_WORDS)} for p in prompts]
    for name, rows in (("prompts", prompts), ("texts", texts), ("pairs", pairs)):
        (home / f"{name}.json").write_text(json.dumps(rows))
    policy = LanguagePolicy(_model(size).to(pick_device()), _tokenizer(vocabulary))
    _learn_to_end(policy, texts, ENDING_STEPS[size], home)
    policy.save(home / "model")
    RewardModel.from_policy(policy, seeds=Seeds(0)).save(home / "reward")
    (home / "done").touch()
    return home


def _model(size: str) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        **SIZES[size], max_position_embeddings=1024, tie_word_embeddings=True, pad_token_id=0, eos_token_id=1, bos_token_id=None
    )
    return LlamaForCausalLM(config).float()


def _tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    words = {"<pad>": 0, "<end>": 1} | {f"w{i}": i for i in range(2, vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>")


def _learn_to_end(policy: LanguagePolicy, texts: list[dict[str, str]], steps: int, home: Path) -> None:
    examples = [Example(policy.tokenizer(t["prompt"])["input_ids"], policy.encode_completion(t["completion"])) for t in texts]
    settings = SFT(
        max_steps=steps, epochs=10, batch_size=16, holdout=0.0, save_every=10**6, log_every=10,
        optim=Optim(learning_rate=2e-3, adam_eps=1e-8),
    )  # fmt: skip
    with Run.open(home / "ending", kind="sft", settings=settings) as run:
        sft(policy, examples, settings, run, seeds=Seeds(0))
