"""Tiny real models, a reward made of text, and a PPO trainer around them: what the tests of the rooms share."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import torch
from torch import nn

from backflip.policies.language import LanguagePolicy
from backflip.policies.tiny import EOS, PAD, TinyShape, tiny_policy, train_tokenizer
from backflip.records import Prompt
from backflip.rewards.protocol import RewardFunction
from backflip.seeds import Seeds
from backflip.settings import Online, Optim, Sampling
from backflip.train.critic import SharedCritic
from backflip.train.episodes import prepare_prompts, stop_tokens
from backflip.train.gathering import Source
from backflip.train.learner import Learner
from backflip.train.online import Trainer

torch.set_num_threads(1)

TEXTS = [
    "the film was good. the plot was dull.",
    "a cat sat on the mat and saw a dog.",
    "no end\nin sight, ever. truly",
]
PROMPTS = [Prompt("the film"), Prompt("a cat sat on the"), Prompt("no"), Prompt("the plot was dull. the cat")]
QUERIES = [[40], [50, 41, 42, 60], [70, 71], [43, 44, 45, 46, 47, 48, 49]]


@functools.cache
def tokenizer() -> Any:
    """A byte-level tokenizer of 280 tokens."""
    return train_tokenizer(TEXTS, 280)


def padless_tokenizer() -> Any:
    """The same without a padding token, as GPT-2's is."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    words = tokenizer().backend_tokenizer.to_str().replace(PAD, "<|old|>")
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(words), eos_token=EOS)


def tiny(seed: int = 0, *, name: str = "tiny") -> LanguagePolicy:
    """An untrained Llama of two layers and 32 dimensions with 64 tokens of context."""
    shape = TinyShape(vocab_size=280, hidden_size=32, intermediate_size=48, layers=2, heads=2, context=64)
    return tiny_policy(TEXTS, seeds=Seeds(seed), shape=shape, name=name)


def tiny_of(kind: str, *, seed: int = 0, dropout: float = 0.0) -> LanguagePolicy:
    """A tiny model of another architecture with the same tokenizer: "gpt2", "qwen2" or "llama"."""
    import transformers

    words = tokenizer()
    special = {"pad_token_id": words.pad_token_id, "eos_token_id": words.eos_token_id, "bos_token_id": None}
    if kind == "gpt2":
        drops = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout)
        config = transformers.GPT2Config(
            vocab_size=len(words), n_embd=32, n_layer=2, n_head=2, n_positions=64, **drops, **special
        )
    else:
        cls = {"qwen2": transformers.Qwen2Config, "llama": transformers.LlamaConfig}[kind]
        config = cls(
            vocab_size=len(words), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=64, attention_dropout=dropout, tie_word_embeddings=False,
            **special,
        )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config).float()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.2, generator=generator)
    return LanguagePolicy(model, words, name=kind)


def vowels(prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[float]:
    """A reward: the share of vowels of a completion."""
    return [sum(c in "aeiou" for c in text) / (len(text) + 1) for text in completions]


def nothing(prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[float]:
    """A reward that is always 0."""
    return [0.0] * len(completions)


def small_ppo(**changes: Any) -> Online:
    """PPO's defaults with a batch of 8 short completions; `temperature` and such go to the sampling settings."""
    sampling = {f.name: changes.pop(f.name) for f in dataclasses.fields(Sampling) if f.name in changes}
    optim = {f.name: changes.pop(f.name) for f in dataclasses.fields(Optim) if f.name in changes}
    defaults = Online(batch_size=8, steps=2, save_every=1, sample_every=1)
    return dataclasses.replace(
        defaults,
        sampling=dataclasses.replace(defaults.sampling, **({"max_new_tokens": 6} | sampling)),
        optim=dataclasses.replace(defaults.optim, **({"micro_batch_size": 3} | optim)),
        **changes,
    )


def make_trainer(
    settings: Online | None = None, *, policy: LanguagePolicy | None = None, reward: RewardFunction = vowels,
    seed: int = 0, **changes: Any,
) -> Trainer:  # fmt: skip
    """What `improve` builds, without a run folder."""
    settings = settings or small_ppo(**changes)
    policy = policy or tiny()
    critic = SharedCritic(policy)
    return Trainer(
        policy=policy,
        reference=policy.frozen_copy(),
        critic=critic,
        source=Source(
            policy=policy,
            prompts=prepare_prompts(policy, PROMPTS, settings),
            reward=reward,
            gold=None,
            sentinel=None,
            settings=settings,
            seeds=Seeds(seed),
            stops=stop_tokens(policy, settings.truncate_at),
        ),
        settings=settings,
        seeds=Seeds(seed),
        learner=Learner([*policy.parameters(), *critic.parameters()], settings.optim, total=100),
        kl_coef=settings.kl_coef,
    )


def gradients(parameters: Any) -> dict[str, torch.Tensor]:
    """A copy of the gradients that named parameters hold now."""
    return {name: p.grad.clone() for name, p in parameters if p.grad is not None}


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of a model's weights."""
    return {name: p.detach().clone() for name, p in model.state_dict().items()}
