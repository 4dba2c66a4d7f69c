"""Folders that plain transformers saved go through every command, and what comes out plain transformers loads."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
SHAPES: dict[str, dict[str, Any]] = {
    "Llama": SMALL | {"num_key_value_heads": 2, "max_position_embeddings": 64},
    "Qwen3": SMALL | {"num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 64},
    "Qwen2": SMALL | {"num_key_value_heads": 1, "max_position_embeddings": 64, "tie_word_embeddings": True},
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64},
}
RUN = ("--quiet", "--batch-size", 8)


def make_folder(kind: str, folder: Path) -> Path:
    """A randomly initialised model and its tokenizer; GPT-2's has no padding token, as the real one.

    Nor has Qwen2's; its class then names one that is not in the vocabulary, and so has no embedding.
    """
    from backflip.policies.tiny import EOS, PAD, train_tokenizer

    words = train_tokenizer(["the film was good", "the plot was dull and bad"], 270)
    if kind in ("GPT2", "Qwen2"):
        words = PreTrainedTokenizerFast(tokenizer_object=words.backend_tokenizer, eos_token=EOS)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=len(words), eos_token_id=words.eos_token_id, bos_token_id=None, pad_token_id=None, **SHAPES[kind]
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    words.save_pretrained(folder)
    assert (words.pad_token is None) == (kind in ("GPT2", "Qwen2"))
    assert PAD in words.get_vocab()
    return folder


def assert_same_logits(folder: Path) -> None:
    """The folder gives plain transformers and us the same next-token probabilities for real prompts, batched or not."""
    from backflip.policies import load_policy, token_batch

    ours, plain = load_policy(folder, device="cpu"), AutoModelForCausalLM.from_pretrained(folder)
    words = AutoTokenizer.from_pretrained(folder)
    queries = [words("the film was")["input_ids"], words("a")["input_ids"]]
    responses = [words(" good" + words.eos_token)["input_ids"], words(" cat sat")["input_ids"]]
    scored = ours.score(token_batch(queries, responses, fill=ours.fill_id)).logps_BT
    for row, (query, response) in enumerate(zip(queries, responses, strict=True)):
        logits = plain(torch.tensor([query + response])).logits[0, len(query) - 1 : -1]
        theirs = logits.log_softmax(-1).gather(-1, torch.tensor(response).unsqueeze(-1)).squeeze(-1)
        assert torch.allclose(scored[row, : len(response)], theirs, atol=1e-5)


def assert_same_scores(folder: Path) -> None:
    """The reward folder gives plain transformers and us the same scores, up to the constant kept in its config."""
    from backflip.rewards import RewardModel

    ours, plain = RewardModel.load(folder, device="cpu"), AutoModelForSequenceClassification.from_pretrained(folder)
    words = AutoTokenizer.from_pretrained(folder)
    prompts, completions = ["the film", "a"], [" was good", " cat sat on the mat"]
    texts = [p + c + words.eos_token for p, c in zip(prompts, completions, strict=True)]
    batch = words(texts, return_tensors="pt", padding=True, padding_side="right")
    batch.pop("token_type_ids", None)
    theirs = plain(**batch).logits.squeeze(-1) + plain.config.backflip["bias"]
    assert torch.allclose(torch.tensor(ours(prompts, completions)), theirs, atol=1e-5)


@pytest.mark.parametrize(("kind", "lora"), [("Llama", 2), ("Qwen3", 2), ("Qwen2", None), ("GPT2", None), ("GPT2", 2)])
def test_from_a_folder_through_every_command(kind: str, lora: int | None, kit: Any, backflip: Any, tmp_path: Path) -> None:
    def command(name: str, *argv: object) -> str:
        said = backflip(name, *argv)
        assert (said.code, said.err) == (0, "")
        return str(said.out)

    base = make_folder(kind, tmp_path / "base")
    assert_same_logits(base)
    adapter = () if lora is None else ("--lora", lora)
    sft, reward, ppo = (tmp_path / name / "model" for name in ("sft", "reward", "ppo"))
    learn = (*RUN, "--learning-rate", 1e-2, *adapter)
    command("sft", "--policy", base, "--data", kit.demos, "--output", sft.parent, "--max-steps", 2, *learn)
    assert_same_logits(sft)

    little = ("--epochs", 0.3, "--normalization-samples", 8, "--max-new-tokens", 4)
    command("reward", "--policy", sft, "--data", kit.pairs, "--output", reward.parent, *RUN, *little)
    assert_same_scores(reward)

    steps = ("--steps", 1, "--ppo-epochs", 2, "--max-new-tokens", 4, *learn)
    command("ppo", "--policy", sft, "--reward", reward, "--data", kit.prompts, "--output", ppo.parent, *steps)
    assert_same_logits(ppo)
    weights = [AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in (base, sft, ppo)]
    for before, after in itertools.pairwise(weights):
        assert any(not torch.equal(before[name], after[name]) for name in before)

    samples = tmp_path / "samples.jsonl"
    given = ("--data", kit.prompts, "--max-rows", 2, "--max-new-tokens", 4, "--output", samples)
    command("sample", "--policy", ppo, "--reward", reward, *given)
    assert len([json.loads(line) for line in samples.read_text().splitlines()]) == 2

    given = ("--policies", f"before={sft}", f"after={ppo}", "--prompts", kit.prompts, "--max-new-tokens", 4)
    assert "blind matches in the store" in command("arena", tmp_path / "feedback.db", *given)
    assert "after" in command("arena", tmp_path / "feedback.db")
