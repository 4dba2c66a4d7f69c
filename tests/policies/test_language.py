"""Scores of a language policy against plain transformers, and what they do not depend on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny_models import QUERIES, padless_tokenizer, tiny, tiny_of, weights

from backflip.errors import ModelError
from backflip.policies.chat import PLAIN
from backflip.policies.language import LanguagePolicy, training_mode
from backflip.policies.loading import load_policy
from backflip.policies.tokens import TokenBatch, token_batch
from backflip.records import Message, Prompt

torch.set_num_threads(1)

KINDS = ["llama", "gpt2", "qwen2"]
RESPONSES = [[10, 11, 12], [13], [14, 15, 16, 17, 1], [18, 1]]
TALK = Prompt((Message("user", "Name a film."), Message("assistant", "A cat."), Message("user", "No, a film.")))


def batch_of(queries: list[list[int]] = QUERIES, responses: list[list[int]] = RESPONSES, **options: Any) -> TokenBatch:
    return token_batch(queries, responses, fill=0, **options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_scores_are_those_of_plain_transformers(kind: str, temperature: float) -> None:
    policy = tiny_of(kind)
    scores = policy.score(batch_of(), temperature=temperature, entropy=True, hidden=True)
    assert scores.entropy_BT is not None
    assert scores.hidden_BTD is not None
    for i, (query, response) in enumerate(zip(QUERIES, RESPONSES, strict=True)):
        n = len(query)
        output = policy.model(torch.tensor([query + response]), output_hidden_states=True)
        logps = (output.logits[0, n - 1 : -1] / temperature).log_softmax(-1)
        expected = logps.gather(1, torch.tensor(response).unsqueeze(1)).squeeze(1)
        width = len(response)
        torch.testing.assert_close(scores.logps_BT[i, :width], expected, rtol=0, atol=1e-5)
        entropy = -(logps.exp() * logps).sum(-1)
        torch.testing.assert_close(scores.entropy_BT[i, :width], entropy, rtol=0, atol=1e-5)
        hidden = output.hidden_states[-1][0, n - 1 : -1]
        torch.testing.assert_close(scores.hidden_BTD[i, :width], hidden, rtol=0, atol=1e-4)
        assert not entropy.requires_grad or not scores.entropy_BT.requires_grad


@pytest.mark.parametrize("kind", KINDS)
def test_scores_do_not_depend_on_padding_or_on_the_other_rows(kind: str) -> None:
    policy = tiny_of(kind)
    whole = policy.score(batch_of()).logps_BT
    wide = policy.score(batch_of(query_width=12, response_width=9)).logps_BT
    for i, response in enumerate(RESPONSES):
        alone = policy.score(batch_of([QUERIES[i]], [response])).logps_BT[0]
        torch.testing.assert_close(whole[i, : len(response)], alone, rtol=0, atol=1e-5)
        torch.testing.assert_close(wide[i, : len(response)], alone, rtol=0, atol=1e-5)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(policy.score(batch_of().rows(order)).logps_BT, whole[order], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_and_padding_get_no_gradient(kind: str) -> None:
    policy = tiny_of(kind)
    found = []
    for junk in (0, 77):
        policy.model.zero_grad()
        batch = batch_of(query_width=9)
        filled = TokenBatch(
            batch.query_BQ.masked_fill(batch.query_mask_BQ == 0, junk), batch.query_mask_BQ,
            batch.response_BT.masked_fill(batch.mask_BT == 0, junk), batch.mask_BT,
        )  # fmt: skip
        (policy.score(filled).logps_BT * batch.mask_BT).sum().backward()
        found.append([p.grad.clone() for _, p in policy.parameters() if p.grad is not None])
    assert found[0]
    for a, b in zip(*found, strict=True):
        assert torch.isfinite(a).all()
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


def test_absolute_positions_count_the_padding() -> None:
    policy = tiny_of("gpt2")
    batch = batch_of([[5, 6]], [[7, 8]])
    padded = batch_of([[5, 6]], [[7, 8]], query_width=4)
    same = [policy.score(b, position_ids="absolute").logps_BT for b in (batch, padded)]
    assert (same[0] - same[1]).abs().max() > 1e-2
    torch.testing.assert_close(same[0], policy.score(batch).logps_BT, rtol=0, atol=1e-6)


def test_scores_of_a_float64_model_are_float64() -> None:
    policy = tiny()
    policy.model.double()
    scores = policy.score(batch_of(), hidden=True, entropy=True)
    assert {x.dtype for x in (scores.logps_BT, scores.entropy_BT, scores.hidden_BTD) if x is not None} == {torch.float64}
    half = tiny()
    half.model.bfloat16()
    assert half.score(batch_of(), hidden=True).logps_BT.dtype == torch.float32


# Text


@given(text=st.text(max_size=40))
def test_any_text_is_encoded_and_comes_back(text: str) -> None:
    # A byte-level vocabulary holds every text that UTF-8 does; the names of its own two special tokens are not text.
    text = text.encode("utf-8", "ignore").decode()
    policy = _shared()
    ids = policy.encode_completion(text)
    assert ids[-1] == policy.eos_id
    assert policy.decode(ids) == text
    assert policy.encode_completion(text, eos=False) == ids[:-1]


def _shared(made: list[LanguagePolicy] = []) -> LanguagePolicy:  # noqa: B006
    if not made:
        made.append(tiny())
    return made[0]


def test_an_empty_prompt_starts_from_the_end_of_a_text() -> None:
    policy = tiny()
    assert policy.encode(Prompt("")) == [policy.eos_id]


def test_a_tokenizers_own_chat_template_wins() -> None:
    policy = tiny()
    policy.tokenizer.chat_template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    assert policy.decode(policy.encode(TALK)) == "<user>Name a film.<assistant>A cat.<user>No, a film."


def test_without_one_conversations_read_as_human_and_assistant_and_stay_so(tmp_path: Path) -> None:
    policy = tiny()
    text = "\n\nHuman: Name a film.\n\nAssistant: A cat.\n\nHuman: No, a film.\n\nAssistant:"
    ids = policy.encode(TALK)
    assert policy.decode(ids) == text
    assert policy.eos_id not in ids
    policy.save(tmp_path / "policy")
    saved = load_policy(tmp_path / "policy", device="cpu")
    assert saved.tokenizer.chat_template == PLAIN
    assert saved.encode(TALK) == ids
    from transformers import AutoTokenizer

    plain = AutoTokenizer.from_pretrained(str(tmp_path / "policy"))
    messages = [m.to_json() for m in TALK.messages]
    assert plain.apply_chat_template(messages, add_generation_prompt=True, tokenize=False) == text


def test_a_tokenizer_without_an_end_is_refused() -> None:
    words = padless_tokenizer()
    words.eos_token = None
    with pytest.raises(ModelError, match="the tokenizer of 'x' has no end-of-text token"):
        LanguagePolicy(tiny().model, words, name="x")


def test_the_fill_is_the_padding_token_or_else_the_end() -> None:
    policy = tiny()
    assert policy.fill_id == policy.tokenizer.pad_token_id == 0
    policy.tokenizer = padless_tokenizer()
    assert policy.fill_id == policy.eos_id == 1


# Copies and modes


def test_a_frozen_copy_does_not_follow() -> None:
    policy = tiny()
    copy = policy.frozen_copy()
    before = weights(copy.model)
    with torch.no_grad():
        for _, parameter in policy.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(weights(copy.model)[name], x) for name, x in before.items())
    assert list(copy.parameters()) == []
    assert copy.name == "reference"


def test_dropout_is_on_only_inside_the_block_even_after_an_error() -> None:
    model = tiny_of("gpt2", dropout=0.5).model
    assert not model.training
    with training_mode(model, True, seed=0):
        assert model.training
    assert not model.training
    with training_mode(model, False, seed=0):
        assert not model.training
    with pytest.raises(KeyError), training_mode(model, True, seed=0):
        raise KeyError
    assert not model.training
