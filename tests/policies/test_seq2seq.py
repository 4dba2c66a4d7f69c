"""Encoder–decoder policies against transformers, in generation, in scoring, in training and on disk."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny_models import PROMPTS, QUERIES, gradients, make_trainer, small_ppo, tiny, vowels, weights
from tests.tiny_seq2seq import model_of, tiny_seq2seq

from backflip.errors import ConfigError, DataError, ModelError
from backflip.maths import matmul
from backflip.policies.language import LanguagePolicy
from backflip.policies.loading import load_policy
from backflip.policies.recompute import recompute
from backflip.policies.seq2seq import EncoderDecoder
from backflip.policies.tokens import left_aligned, token_batch
from backflip.records import Message, Prompt
from backflip.rewards.learned import RewardModel
from backflip.rollout.local import generate
from backflip.runs import Run
from backflip.runs.logs import read_lines
from backflip.seeds import Seeds
from backflip.settings import SFT, Optim, Sampling
from backflip.train.online import improve
from backflip.train.sft import encode_demonstrations, encode_texts, sft

torch.set_num_threads(1)

KINDS = ["t5", "bart"]
RESPONSES = [[10, 11, 12], [0, 13], [14, 0, 1, 15, 1], [1]]  # 0 pads and starts T5, 1 ends and starts BART: ordinary tokens here
BATCH = token_batch(QUERIES, RESPONSES, fill=0)
FULL = Sampling(max_new_tokens=8, temperature=1.0)


def teacher_forced(model: Any, query: list[int], response: list[int], temperature: float = 1.0) -> torch.Tensor:
    """log π of each token of one row, by transformers' own shifting of labels."""
    logits = model(input_ids=torch.tensor([query]), labels=torch.tensor([response])).logits[0] / temperature
    return logits.log_softmax(-1).gather(1, torch.tensor(response).unsqueeze(1)).squeeze(1)


# Scoring


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_are_those_of_labels(kind: str, temperature: float) -> None:
    policy = tiny_seq2seq(kind)
    scored = policy.score(BATCH, temperature=temperature).logps_BT
    for i, (query, response) in enumerate(zip(QUERIES, RESPONSES, strict=True)):
        expected = teacher_forced(policy.model, query, response, temperature)
        torch.testing.assert_close(scored[i, : len(response)], expected, rtol=0, atol=1e-5)
    assert scored.requires_grad


@pytest.mark.parametrize("kind", KINDS)
def test_scores_do_not_depend_on_padding_or_order(kind: str) -> None:
    policy = tiny_seq2seq(kind)
    plain = policy.score(BATCH, entropy=True, hidden=True)
    wide = policy.score(token_batch(QUERIES, RESPONSES, fill=0, query_width=15, response_width=9), entropy=True, hidden=True)
    filled = policy.score(token_batch(QUERIES, RESPONSES, fill=77), entropy=True, hidden=True)
    order = torch.tensor([2, 0, 3, 1])
    mixed = policy.score(BATCH.rows(order), entropy=True, hidden=True)
    for name in ("logps_BT", "entropy_BT", "hidden_BTD"):
        ours = getattr(plain, name)
        for i, response in enumerate(RESPONSES):
            n = len(response)
            alone = getattr(policy.score(token_batch([QUERIES[i]], [response], fill=0), entropy=True, hidden=True), name)
            at = int((order == i).nonzero())
            for other in (alone[0], getattr(wide, name)[i], getattr(filled, name)[i], getattr(mixed, name)[at]):
                torch.testing.assert_close(other[:n], ours[i, :n], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_entropy_and_hidden_states_are_the_decoder_s(kind: str) -> None:
    policy = tiny_seq2seq(kind)
    scores = policy.score(BATCH, entropy=True, hidden=True)
    assert scores.hidden_BTD is not None
    assert scores.hidden_BTD.shape == (4, 5, policy.hidden_size)
    scale = policy.hidden_size**-0.5 if kind == "t5" else 1.0
    logits = policy.model.get_output_embeddings()(scores.hidden_BTD * scale)
    logps = logits.log_softmax(-1)
    torch.testing.assert_close(logps.gather(2, BATCH.response_BT.unsqueeze(2)).squeeze(2), scores.logps_BT, rtol=0, atol=1e-5)
    torch.testing.assert_close(-(logps.exp() * logps).sum(-1), scores.entropy_BT, rtol=0, atol=1e-5, check_dtype=False)


def test_absolute_positions_are_those_of_the_padded_row() -> None:
    learned, relative = tiny_seq2seq("bart"), tiny_seq2seq("t5")
    for policy, same in ((learned, False), (relative, True)):
        mask, absolute = (policy.score(BATCH, position_ids=kind).logps_BT for kind in ("mask", "absolute"))
        assert torch.allclose(mask[3], absolute[3], atol=1e-5), "a row without padding is the same either way"
        assert torch.allclose(mask[0, :3], absolute[0, :3], atol=1e-4) == same


def test_rows_are_aligned_without_changing_their_order() -> None:
    ids, mask = left_aligned(torch.tensor([[9, 5, 6], [1, 2, 3]]), torch.tensor([[0, 1, 1], [1, 1, 1]]))
    assert ids.tolist() == [[5, 6, 9], [1, 2, 3]]
    assert mask.tolist() == [[1, 1, 0], [1, 1, 1]]


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_both_stacks(kind: str) -> None:
    policy = tiny_seq2seq(kind)
    (policy.score(BATCH).logps_BT * BATCH.mask_BT).sum().backward()
    found = gradients(policy.parameters())
    assert set(found) == {name for name, _ in policy.parameters()}
    for part in ("encoder", "decoder"):
        assert any(part in name and grad.abs().max() > 1e-6 for name, grad in found.items())


@pytest.mark.skipif(not matmul.available(), reason="this PyTorch has no switch for float32 products")
@pytest.mark.parametrize("kind", KINDS)
def test_our_attention_gives_the_same(kind: str) -> None:
    found = {}
    for choice in ("stock", "onednn"):
        policy = tiny_seq2seq(kind)
        assert policy.model.config._attn_implementation == "backflip"
        with matmul.use(choice):
            logps_BT = policy.score(BATCH).logps_BT * BATCH.mask_BT
            logps_BT.sum().backward()
            rollout = generate(policy, QUERIES, FULL, seeds=Seeds(0))
        found[choice] = logps_BT.detach(), rollout.logps_BT, gradients(policy.parameters())
    for ours, theirs in zip(found["onednn"], found["stock"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


# Words


def test_prompts_end_as_the_tokenizer_ends_texts() -> None:
    policy = tiny_seq2seq("t5")
    words, eos = policy.tokenizer, policy.eos_id
    bare = words("the film", add_special_tokens=False)["input_ids"]
    assert policy.encode(Prompt("the film")) == [*bare, eos]
    assert policy.encode(Prompt("")) == [eos]
    talk = policy.encode(Prompt((Message("user", "Hi"),)))
    assert talk.count(eos) == 1
    assert talk[-1] == eos
    assert policy.decode(talk) == "\n\nHuman: Hi\n\nAssistant:"
    assert policy.encode_completion(" was good") == [*words(" was good", add_special_tokens=False)["input_ids"], eos]
    assert policy.encode_completion("", eos=False) == []
    # A tokenizer that adds nothing is left alone.
    plain = LanguagePolicy(policy.model, tiny().tokenizer)
    assert plain.encode(Prompt("the film")) == bare
    assert plain.encode(Prompt((Message("user", "Hi"),)))[-1] != eos
    assert plain.encode_completion("", eos=True) == [eos]


def test_a_target_begins_as_its_family_s_do() -> None:
    policy = tiny_seq2seq("bart")
    start, eos = policy.tokenizer.bos_token_id, policy.eos_id
    bare = policy.tokenizer("the film", add_special_tokens=False)["input_ids"]
    assert policy.encode(Prompt("the film")) == [start, *bare, eos]
    assert policy.encode_completion("the film") == [start, *bare, eos]
    assert policy.encode_completion("the film", eos=False) == [start, *bare]
    assert policy.decode([start, *bare, eos]) == "the film"


# Generation


@pytest.mark.parametrize("kind", KINDS)
def test_rollouts_have_the_log_probabilities_of_scoring(kind: str) -> None:
    policy = tiny_seq2seq(kind)
    for settings in (FULL, dataclasses.replace(FULL, temperature=0.7, ignore_eos=True)):
        rollout = generate(policy, QUERIES, settings, seeds=Seeds(1))
        scored = policy.score(rollout.tokens, temperature=settings.temperature).logps_BT.detach()
        mask = rollout.tokens.mask_BT
        torch.testing.assert_close(rollout.logps_BT, scored * mask, rtol=0, atol=1e-4)
        assert (rollout.logps_BT * mask < 0).any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_completion_does_not_depend_on_the_others(kind: str) -> None:
    policy = tiny_seq2seq(kind)
    together = generate(policy, QUERIES, FULL, seeds=Seeds(0))
    for i, query in enumerate(QUERIES):
        alone = generate(policy, [query], FULL, seeds=Seeds(0), first=i)
        n = int(together.tokens.mask_BT[i].sum())
        assert alone.tokens.response_BT[0].tolist() == together.tokens.response_BT[i, :n].tolist()
        torch.testing.assert_close(alone.logps_BT[0], together.logps_BT[i, :n], rtol=0, atol=1e-5)
    few = generate(policy, QUERIES, dataclasses.replace(FULL, slots=3), seeds=Seeds(0), width=20)
    assert torch.equal(few.tokens.response_BT, together.tokens.response_BT)


class Letters:
    """A tokenizer for a vocabulary of five: a padding token, an end, and three letters."""

    chat_template, pad_token_id, eos_token_id = None, 0, 1

    def __call__(self, text: str = "", text_target: str = "", **options: Any) -> dict[str, list[int]]:
        return {"input_ids": ["_$abc".index(c) for c in text + text_target]}

    def decode(self, ids: list[int], **options: Any) -> str:
        return "".join("_$abc"[i] for i in ids)


@pytest.mark.parametrize("kind", KINDS)
def test_sequences_come_as_often_as_their_probability_says(kind: str) -> None:
    policy = LanguagePolicy(model_of(kind, 5, pad=0, eos=1), Letters())
    n, queries = 5000, [[2, 3, 1], [4, 1]]
    asked = Sampling(max_new_tokens=2, temperature={"t5": 0.8, "bart": 3.0}[kind], ignore_eos=True)
    rollout = generate(policy, queries * n, dataclasses.replace(asked, slots=1000), seeds=Seeds(0))
    every = [list(pair) for pair in itertools.product(range(5), repeat=2)]
    number = rollout.tokens.response_BT @ torch.tensor([5, 1])
    for q, query in enumerate(queries):
        scored = policy.score(token_batch([query] * 25, every, fill=0), temperature=asked.temperature).logps_BT.sum(1)
        expected = scored.detach().exp().double() * n
        assert float(expected.sum()) == pytest.approx(n, rel=1e-5)
        seen = torch.bincount(number[q::2], minlength=25).double()
        # Chi-square with 24 degrees of freedom: above 51.2 once in a thousand.
        assert expected.min() > 3
        assert ((seen - expected).square() / expected).sum() < 51.2


# Training


@pytest.mark.parametrize("kind", KINDS)
def test_ppo_raises_a_reward(kind: str, tmp_path: Path) -> None:
    settings = small_ppo(
        steps=12, batch_size=32, learning_rate=2e-2, lr_schedule="constant", temperature=1.0, kl_coef=0.0,
        kl_controller="fixed", missing_penalty=None, micro_batch_size=32, save_every=12,
    )  # fmt: skip
    with Run.open(tmp_path, kind="ppo", settings=settings, quiet=True) as run:
        improve(tiny_seq2seq(kind), PROMPTS, vowels, settings, run, seeds=Seeds(0))
    rewards = [line["objective/scores"] for line in read_lines(tmp_path / "metrics.jsonl")]
    assert sum(rewards[-3:]) > 2 * sum(rewards[:3])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", [{}, {"precision": "bfloat16"}])
def test_a_step_starts_at_ratio_one_and_moves_everything(kind: str, change: dict[str, Any]) -> None:
    policy = tiny_seq2seq(kind, dropout=0.1)
    before = weights(policy.model)
    trainer = make_trainer(policy=policy, reward=vowels, learning_rate=1e-3, **change)
    metrics = trainer.step(0)
    assert metrics["rollout/logp_max_diff"] < (0.4 if change else 1e-4)
    assert metrics["kl/seq_nats"] == pytest.approx(0.0, abs=1e-4)
    assert metrics["loss/value_avg"] > 0
    moved = {name for name, x in weights(policy.model).items() if not torch.equal(x, before[name])}
    assert any("encoder" in name for name in moved)
    assert any("decoder" in name for name in moved)
    assert trainer.step(1)["kl/seq_nats"] != pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_recomputed_layers_keep_less_and_draw_no_dropout(kind: str) -> None:
    found, kept = [], []
    for recomputed in (False, True):
        policy = tiny_seq2seq(kind, dropout=0.3)  # much of it drawn by the layers themselves, not by parts of them
        if recomputed:
            recompute(policy.model)
        saved: list[int] = []

        def note(x: torch.Tensor, into: list[int] = saved) -> torch.Tensor:
            into.append(x.numel())
            return x

        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            logps_BT = policy.score(BATCH).logps_BT * BATCH.mask_BT
        logps_BT.sum().backward()
        kept.append(sum(saved))
        found.append((logps_BT.detach(), gradients(policy.parameters())))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)
    assert kept[1] < 0.5 * kept[0]


@pytest.mark.parametrize("kind", KINDS)
def test_fine_tuning_lowers_the_loss(kind: str, tmp_path: Path) -> None:
    policy = tiny_seq2seq(kind)
    settings = SFT(epochs=99, max_steps=30, batch_size=4, holdout=0.0, optim=Optim(learning_rate=2e-2), save_every=30)
    rows = [(p, t) for p in PROMPTS[:2] for t in (" was good.", " the cat")]
    examples = encode_demonstrations(policy, rows, settings)
    batch = token_batch([e.query for e in examples], [e.response for e in examples], fill=0)

    def loss() -> float:
        return float(-(policy.score(batch).logps_BT.detach() * batch.mask_BT).sum() / batch.mask_BT.sum())

    before = loss()
    with Run.open(tmp_path, kind="sft", settings=settings, quiet=True) as run:
        sft(policy, examples, settings, run, seeds=Seeds(0))
    assert loss() < before / 2


# On disk


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_plain_transformers_loads(kind: str, tmp_path: Path) -> None:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    policy = tiny_seq2seq(kind)
    policy.save(tmp_path / "policy")
    plain = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "policy").eval()
    words = AutoTokenizer.from_pretrained(tmp_path / "policy")
    given = {"input_ids": torch.tensor([QUERIES[1]]), "labels": torch.tensor([RESPONSES[2]])}
    assert torch.equal(plain(**given).logits, policy.model(**given).logits)
    assert words("the film")["input_ids"] == policy.encode(Prompt("the film"))
    loaded = load_policy(tmp_path / "policy", device="cpu")
    assert isinstance(loaded.form, EncoderDecoder)
    assert loaded.form == policy.form
    assert torch.equal(loaded.score(BATCH).logps_BT, policy.score(BATCH).logps_BT)
    with torch.no_grad():
        for _, parameter in loaded.parameters():
            parameter.mul_(2.0)
    assert not torch.equal(loaded.score(BATCH).logps_BT, policy.score(BATCH).logps_BT)
    loaded.restore(tmp_path / "policy")
    assert torch.equal(loaded.score(BATCH).logps_BT, policy.score(BATCH).logps_BT)


def test_a_frozen_copy_stays() -> None:
    policy = tiny_seq2seq("t5")
    reference, before = policy.frozen_copy(), policy.score(BATCH).logps_BT.detach()
    with torch.no_grad():
        for _, parameter in policy.parameters():
            parameter.mul_(1.5)
    assert list(reference.parameters()) == []
    torch.testing.assert_close(reference.score(BATCH).logps_BT, before, rtol=0, atol=1e-6)
    assert (policy.score(BATCH).logps_BT - before).abs().max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_is_trained_saved_and_merged(kind: str, tmp_path: Path) -> None:
    tiny_seq2seq(kind).save(tmp_path / "base")
    base = load_policy(tmp_path / "base", device="cpu").score(BATCH).logps_BT.detach()
    policy = load_policy(tmp_path / "base", lora=2, device="cpu")
    torch.testing.assert_close(policy.score(BATCH).logps_BT, base, rtol=0, atol=1e-5)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in policy.parameters():
            assert "lora_" in name
            parameter.normal_(0.0, 0.3, generator=generator)
    moved = policy.score(BATCH).logps_BT.detach()
    assert (moved - base).abs().max() > 1e-2
    rollout = generate(policy, QUERIES, FULL, seeds=Seeds(1))
    torch.testing.assert_close(
        rollout.logps_BT, policy.score(rollout.tokens).logps_BT.detach() * rollout.tokens.mask_BT, rtol=0, atol=1e-4
    )
    policy.save(tmp_path / "adapter")
    assert torch.equal(load_policy(tmp_path / "adapter", device="cpu").score(BATCH).logps_BT, moved)
    whole = policy.merged()
    assert not whole.is_adapted
    torch.testing.assert_close(whole.score(BATCH).logps_BT, moved, rtol=0, atol=1e-4)


# What is refused


def test_a_decoder_without_a_start_is_refused() -> None:
    policy = tiny_seq2seq("t5")
    policy.model.config.decoder_start_token_id = None
    with pytest.raises(ModelError, match="the decoder of 'policy' has no token to start from; set `decoder_start_token_id`"):
        LanguagePolicy(policy.model, policy.tokenizer)


def test_a_reward_model_needs_another_form() -> None:
    for kind in KINDS:
        with pytest.raises(ModelError, match="has no reward head that backflip knows; use a decoder-only model"):
            RewardModel.from_policy(tiny_seq2seq(kind), seeds=Seeds(0))


def test_a_classifier_is_no_policy(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    policy = tiny_seq2seq("t5")
    AutoModelForSequenceClassification.from_config(policy.model.config).save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="is a reward model; give a language model"):
        load_policy(tmp_path)


def test_what_only_one_text_can_teach_is_refused() -> None:
    policy = tiny_seq2seq("t5")
    with pytest.raises(DataError, match=r"raw text does not say what the encoder of 't5' should read"):
        encode_texts(policy, ["a text"], SFT())
    with pytest.raises(ConfigError, match=r"loss_on_prompt teaches a model to write its prompts, and 't5' reads them"):
        encode_demonstrations(policy, [(Prompt("a"), "b")], SFT(loss_on_prompt=True))
    assert encode_demonstrations(tiny(), [(Prompt("a"), "b")], SFT(loss_on_prompt=True))
