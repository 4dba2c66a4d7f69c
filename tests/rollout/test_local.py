"""Generation against transformers' own, against exact probabilities, and independent of who shares the batch."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from tests.tiny_models import PROMPTS, QUERIES, tiny, tiny_of

from backflip.errors import DataError, NumericsError
from backflip.lab.exact_training import exact_policy
from backflip.policies.language import LanguagePolicy
from backflip.records import Prompt
from backflip.rollout.local import encode_prompts, generate, generate_samples
from backflip.seeds import Seeds
from backflip.settings import Sampling
from backflip.worlds.exact import ExactWorld
from backflip.worlds.exact_text import prompts_of

torch.set_num_threads(1)

KINDS = ["llama", "gpt2", "qwen2"]
FULL = Sampling(max_new_tokens=12, temperature=1.0)


class NoCache(torch.nn.Module):
    """A model that keeps no key-value cache."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.inner = model
        self.config = model.config
        self.get_input_embeddings = model.get_input_embeddings

    def forward(self, past_key_values: Any = None, use_cache: bool = False, **options: Any) -> Any:
        assert past_key_values is None
        return self.inner(use_cache=False, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_the_cold_limit_is_greedy_decoding(kind: str) -> None:
    policy = tiny_of(kind)
    ours = generate(policy, QUERIES, dataclasses.replace(FULL, temperature=1e-4), seeds=Seeds(0))
    theirs = policy.model.generate(
        input_ids=ours.tokens.query_BQ, attention_mask=ours.tokens.query_mask_BQ, do_sample=False, max_new_tokens=12,
        pad_token_id=policy.fill_id, eos_token_id=policy.eos_id,
    )  # fmt: skip
    responses = theirs[:, ours.tokens.query_BQ.shape[1] :]
    width = ours.tokens.response_BT.shape[1]
    assert responses.shape[1] <= width
    for i in range(len(QUERIES)):
        n = int(ours.tokens.mask_BT[i].sum())
        assert ours.tokens.response_BT[i, :n].tolist() == responses[i, :n].tolist()
    for query, row in zip(QUERIES, ours.tokens.response_BT.tolist(), strict=True):  # and alone, without any padding
        alone = policy.model.generate(
            input_ids=torch.tensor([query]), attention_mask=torch.ones(1, len(query), dtype=torch.long),
            do_sample=False, max_new_tokens=12, pad_token_id=policy.fill_id, eos_token_id=policy.eos_id,
        )[0, len(query) :].tolist()  # fmt: skip
        assert row[: len(alone)] == alone


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cache", [True, False])
def test_log_probabilities_are_those_of_scoring(kind: str, cache: bool) -> None:
    policy = tiny_of(kind)
    if not cache:
        policy = LanguagePolicy(NoCache(policy.model), policy.tokenizer)
    for settings in (FULL, dataclasses.replace(FULL, temperature=0.7, ignore_eos=True)):
        rollout = generate(policy, QUERIES, settings, seeds=Seeds(1))
        scored = policy.score(rollout.tokens, temperature=settings.temperature).logps_BT.detach()
        mask = rollout.tokens.mask_BT
        torch.testing.assert_close(rollout.logps_BT, scored * mask, rtol=0, atol=1e-5)
        assert (rollout.logps_BT * mask <= 0).all()


def test_with_and_without_a_cache_the_same_is_drawn() -> None:
    policy = tiny_of("gpt2")
    plain = LanguagePolicy(NoCache(policy.model), policy.tokenizer)
    one, other = (generate(p, QUERIES, FULL, seeds=Seeds(2)) for p in (policy, plain))
    assert torch.equal(one.tokens.response_BT, other.tokens.response_BT)


def test_truncated_sampling_reports_the_truncated_distribution() -> None:
    policy = tiny()
    settings = dataclasses.replace(FULL, top_k=2, ignore_eos=True)
    rollout = generate(policy, QUERIES, settings, seeds=Seeds(0))
    for t in range(12):
        ids = torch.cat([rollout.tokens.query_BQ, rollout.tokens.response_BT[:, :t]], dim=1)[0:1]
        ids = ids[:, int((rollout.tokens.query_mask_BQ[0] == 0).sum()) :]
        best = policy.model(ids).logits[0, -1].topk(2)
        token = int(rollout.tokens.response_BT[0, t])
        assert token in best.indices.tolist()
        place = best.indices.tolist().index(token)
        assert rollout.logps_BT[0, t].item() == pytest.approx(best.values.log_softmax(0)[place].item(), abs=1e-5)


def test_sequences_come_as_often_as_the_exact_world_says() -> None:
    world = ExactWorld(vocab=3, length=2, prompts=2)
    n = 6000
    queries = [[world.vocab + i % 2] for i in range(n)]
    for temperature in (1.0, 0.6):
        policy = exact_policy(world)
        settings = Sampling(max_new_tokens=3, temperature=temperature)
        rollout = generate(policy, queries, settings, seeds=Seeds(0))
        assert rollout.finished_B.all()
        number = rollout.tokens.response_BT[:, 0] * 3 + rollout.tokens.response_BT[:, 1]
        expected = world.sequence_logps(world.reference / temperature).exp() * (n / 2)
        for prompt in range(2):
            seen = torch.bincount(number[prompt::2], minlength=9).double()
            # Chi-square with 8 degrees of freedom: above 26.1 once in a thousand.
            assert ((seen - expected[prompt]).square() / expected[prompt]).sum() < 26.1


# Who shares a batch


def test_a_row_does_not_depend_on_the_others() -> None:
    policy = tiny()
    together = generate(policy, QUERIES, FULL, seeds=Seeds(0))
    for i, query in enumerate(QUERIES):
        alone = generate(policy, [query], FULL, seeds=Seeds(0), first=i)
        n = int(together.tokens.mask_BT[i].sum())
        assert alone.tokens.response_BT[0].tolist() == together.tokens.response_BT[i, :n].tolist()
        torch.testing.assert_close(alone.logps_BT[0], together.logps_BT[i, :n], rtol=0, atol=1e-5)
    wide = generate(policy, QUERIES, FULL, seeds=Seeds(0), width=20)
    assert torch.equal(wide.tokens.response_BT, together.tokens.response_BT)


def test_samples_do_not_depend_on_the_chunks() -> None:
    policy = tiny()
    whole = generate_samples(policy, PROMPTS, n=3, seeds=Seeds(0), settings=FULL)
    for chunk in (1, 5, 12):
        parts = generate_samples(policy, PROMPTS, n=3, seeds=Seeds(0), settings=FULL, chunk=chunk)
        assert [[s.tokens for s in group] for group in parts] == [[s.tokens for s in group] for group in whole]
    assert len({s.tokens for group in whole for s in group}) > 6
    other = generate_samples(policy, PROMPTS, n=3, seeds=Seeds(1), settings=FULL)
    assert [s.tokens for s in other[0]] != [s.tokens for s in whole[0]]


# The end of a text


def test_samples_end_with_the_end_of_text_or_at_the_limit() -> None:
    policy = tiny()
    settings = Sampling(max_new_tokens=40, temperature=1.0)
    samples = [s for group in generate_samples(policy, PROMPTS, n=16, seeds=Seeds(0), settings=settings) for s in group]
    assert {s.finished for s in samples} == {True, False}
    for sample in samples:
        assert sample.policy == "tiny"
        assert len(sample.logps) == sample.n_tokens
        assert sample.text == policy.decode(list(sample.tokens))
        assert sample.finished == (policy.eos_id in sample.tokens)
        assert policy.eos_id not in sample.tokens[:-1]
        assert sample.finished or sample.n_tokens == 40


def test_past_the_end_every_row_is_as_long_as_allowed_and_begins_the_same() -> None:
    policy = tiny()
    short = Sampling(max_new_tokens=40, temperature=1.0)
    rows = QUERIES * 4
    ended = generate(policy, rows, short, seeds=Seeds(0))
    full = generate(policy, rows, dataclasses.replace(short, ignore_eos=True), seeds=Seeds(0))
    assert full.tokens.mask_BT.all()
    assert full.tokens.response_BT.shape == (16, 40)
    assert torch.equal(full.finished_B, ended.finished_B)
    for i in range(16):
        n = int(ended.tokens.mask_BT[i].sum())
        assert torch.equal(full.tokens.response_BT[i, :n], ended.tokens.response_BT[i, :n])
    # A sample stops at its first end all the same.
    samples = generate_samples(policy, PROMPTS, n=4, seeds=Seeds(0), settings=dataclasses.replace(short, ignore_eos=True))
    assert all(policy.eos_id not in s.tokens[:-1] for group in samples for s in group)


def test_what_stands_after_an_end_is_masked() -> None:
    policy = tiny()
    rollout = generate(policy, QUERIES * 4, Sampling(max_new_tokens=40, temperature=1.0), seeds=Seeds(0))
    for row, mask, logps, done in zip(
        rollout.tokens.response_BT.tolist(), rollout.tokens.mask_BT.tolist(), rollout.logps_BT.tolist(),
        rollout.finished_B.tolist(), strict=True,
    ):  # fmt: skip
        n = row.index(policy.eos_id) + 1 if done else len(row)
        assert mask == [1] * n + [0] * (len(row) - n)
        assert logps[n:] == [0.0] * (len(row) - n)


def test_generation_stops_when_every_row_has_ended() -> None:
    world = ExactWorld(vocab=3, length=2, prompts=2)
    policy = exact_policy(world)
    policy.model.config.max_position_embeddings = 50
    samples = generate_samples(
        policy, prompts_of(world), n=2, seeds=Seeds(0), settings=Sampling(max_new_tokens=30, temperature=1.0)
    )
    assert {s.n_tokens for group in samples for s in group} == {3}


# What is refused


def test_prompts_that_leave_no_room_are_named() -> None:
    policy = tiny()
    with pytest.raises(DataError, match=r"prompt 2 is \d+ tokens long and with 12 new ones exceeds .* context of 64"):
        generate_samples(policy, [Prompt("no"), Prompt("xyz " * 30)], n=1, seeds=Seeds(0), settings=FULL)
    ids = encode_prompts(policy, [Prompt("no")], max_new_tokens=64 - len(policy.encode(Prompt("no"))))
    assert ids == [policy.encode(Prompt("no"))]


def test_a_model_with_damaged_weights_is_named() -> None:
    policy = tiny(name="broken")
    with torch.no_grad():
        policy.model.model.norm.weight.fill_(math.nan)
    with pytest.raises(NumericsError, match=r"'broken' gives probabilities that are not numbers \(row 1\)"):
        generate(policy, QUERIES, FULL, seeds=Seeds(0))
