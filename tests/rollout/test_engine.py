"""The engine against transformers and against itself: who shares the slots, when rows enter, how a prompt is read."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
import torch
import transformers
from tests.tiny_models import PROMPTS, tiny, tokenizer

from backflip.maths import matmul
from backflip.policies.language import LanguagePolicy
from backflip.policies.llama import LlamaForward
from backflip.policies.loading import with_lora
from backflip.rollout import engine
from backflip.rollout.local import Rollout, cut, generate, generate_samples
from backflip.seeds import Seeds
from backflip.settings import Sampling

torch.set_num_threads(1)

FULL = Sampling(max_new_tokens=12, temperature=1.0)
GREEDY = dataclasses.replace(FULL, temperature=1e-4)
KINDS = ["llama", "mistral", "qwen2", "qwen3", "gpt2"]
CONFIGS: dict[str, Any] = {
    "llama": (transformers.LlamaConfig, {"num_key_value_heads": 1, "attention_bias": True, "mlp_bias": True}),
    "mistral": (transformers.MistralConfig, {"num_key_value_heads": 2, "head_dim": 12, "sliding_window": None}),
    "qwen2": (transformers.Qwen2Config, {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "qwen3": (transformers.Qwen3Config, {"num_key_value_heads": 1, "head_dim": 24}),
}


def model_of(kind: str, **changes: Any) -> LanguagePolicy:
    """A random model of two layers and four heads with sharp enough logits for greedy decoding to be unambiguous."""
    words = tokenizer()
    special = {"pad_token_id": words.pad_token_id, "eos_token_id": words.eos_token_id, "bos_token_id": None}
    if kind == "gpt2":
        config: Any = transformers.GPT2Config(vocab_size=len(words), n_embd=32, n_layer=2, n_head=4, n_positions=64, **special)
    else:
        cls, own = CONFIGS[kind]
        shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
        config = cls(vocab_size=len(words), max_position_embeddings=64, **shape, **special, **(own | changes))
    model = transformers.AutoModelForCausalLM.from_config(config).float()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 or name.endswith("bias"):
                parameter.normal_(0.0, 0.3, generator=generator)
        model.get_output_embeddings().weight[words.eos_token_id] *= 3  # now and then the likeliest, so that rows end
    return LanguagePolicy(model, words, name=kind)


def queries(n: int) -> list[list[int]]:
    """Prompts of 1 to 9 tokens, one in three of them asked before."""
    generator = torch.Generator().manual_seed(n)
    rows = [torch.randint(2, 280, (1 + i % 9,), generator=generator).tolist() for i in range(n)]
    return [rows[i - i % 3] for i in range(n)]


def texts(rollout: Rollout) -> list[list[int]]:
    """The tokens of each row without what stands under the mask."""
    lengths = rollout.tokens.mask_BT.sum(1).tolist()
    return [row[:n] for row, n in zip(rollout.tokens.response_BT.tolist(), lengths, strict=True)]


def check_logps(policy: LanguagePolicy, rollout: Rollout, settings: Sampling, *, within: float) -> None:
    """The log-probabilities given with the tokens are those of a full forward pass."""
    scored_BT = policy.score(rollout.tokens, temperature=settings.temperature).logps_BT.detach()
    mask_BT = rollout.tokens.mask_BT
    torch.testing.assert_close(rollout.logps_BT * mask_BT, scored_BT * mask_BT, rtol=0, atol=within)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 6, 21])
def test_greedy_tokens_are_those_of_transformers(kind: str, n: int) -> None:
    policy = model_of(kind)
    rows = queries(n)
    ours = texts(generate(policy, rows, dataclasses.replace(GREEDY, slots=8), seeds=Seeds(0)))
    for query, response in zip(rows, ours, strict=True):
        theirs = policy.model.generate(
            input_ids=torch.tensor([query]), attention_mask=torch.ones(1, len(query), dtype=torch.long),
            do_sample=False, max_new_tokens=12, pad_token_id=policy.fill_id, eos_token_id=policy.eos_id,
        )[0, len(query) :].tolist()  # fmt: skip
        assert response == theirs


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("slots", [1, 5, 64])
def test_log_probabilities_are_those_of_a_full_forward_pass(kind: str, slots: int) -> None:
    policy = model_of(kind)
    for temperature in (1.0, 2.0):
        settings = dataclasses.replace(FULL, slots=slots, temperature=temperature)
        rollout = generate(policy, queries(21), settings, seeds=Seeds(1))
        check_logps(policy, rollout, settings, within=1e-4)
        assert rollout.tokens.mask_BT.sum(1).float().std() > 0.1  # rows of many lengths, or nothing was tested


@pytest.mark.parametrize("slots", [1, 2, 3, 7, 20, 64])
def test_slots_change_nothing(slots: int) -> None:
    policy = model_of("qwen3")
    rows = queries(30)
    one = generate(policy, rows, FULL, seeds=Seeds(0))
    other = generate(policy, rows, dataclasses.replace(FULL, slots=slots), seeds=Seeds(0))
    assert torch.equal(one.tokens.response_BT, other.tokens.response_BT)
    assert torch.equal(one.finished_B, other.finished_B)
    torch.testing.assert_close(one.logps_BT, other.logps_BT, rtol=0, atol=1e-5)


def test_a_row_does_not_depend_on_its_company_or_its_place() -> None:
    policy = model_of("llama")
    rows = queries(12)
    together = texts(generate(policy, rows, dataclasses.replace(FULL, slots=5), seeds=Seeds(0)))
    for i in range(12):
        assert texts(generate(policy, [rows[i]], FULL, seeds=Seeds(0), first=i)) == [together[i]]
    # The same prompt eight times is read once; each row still draws its own numbers.
    group = texts(generate(policy, [rows[4]] * 8, FULL, seeds=Seeds(0)))
    assert group == [texts(generate(policy, [rows[4]], FULL, seeds=Seeds(0), first=i))[0] for i in range(8)]
    assert len(set(map(tuple, group))) > 4


def test_many_rows_pass_through_few_slots_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from backflip.rollout import engine

    moves, widths = [], set()
    rewind, empty = engine._Engine.rewind, engine.Cache.empty.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(engine._Engine, "rewind", lambda self: (moves.append(self.column), rewind(self)))
    counted = classmethod(lambda cls, f, slots, columns, d: (widths.add(columns), empty(cls, f, slots, columns, d))[1])
    monkeypatch.setattr(engine.Cache, "empty", counted)
    policy, rows = model_of("mistral"), queries(90)
    settings = dataclasses.replace(FULL, slots=4)
    rollout = generate(policy, rows, settings, seeds=Seeds(3))
    assert len(moves) > 5
    assert widths == {7 + 12 + 12}  # the longest prompt, a whole row, and as much again
    check_logps(policy, rollout, settings, within=1e-4)


def test_a_long_prompt_enters_after_short_ones() -> None:
    policy = model_of("llama")
    rows = [[5, 6]] * 6 + [list(range(40, 80))] + [[7]] * 3
    settings = dataclasses.replace(FULL, slots=2, ignore_eos=True)
    check_logps(policy, generate(policy, rows, settings, seeds=Seeds(0)), settings, within=1e-4)


def test_an_adapter_is_part_of_the_policy() -> None:
    policy = with_lora(model_of("llama"), rank=2, seeds=Seeds(0))
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.5, generator=torch.Generator().manual_seed(2))
    for precision, within in (("model", 1e-4), ("bfloat16", 0.3)):
        settings = dataclasses.replace(FULL, precision=precision)
        assert LlamaForward.fits(policy.model)
        check_logps(policy, generate(policy, queries(9), settings, seeds=Seeds(0)), settings, within=within)
    plain = policy.merged()
    assert texts(generate(plain, queries(9), FULL, seeds=Seeds(0))) == texts(generate(policy, queries(9), FULL, seeds=Seeds(0)))


@pytest.mark.parametrize("kind", KINDS[:4])
@pytest.mark.parametrize("adapted", [False, True])
def test_upright_products_change_the_last_digits_alone(kind: str, adapted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matmul, "WIDE", 24)
    stood: list[int] = []
    upright = matmul._upright
    monkeypatch.setattr(matmul, "_upright", lambda x, *rest: (stood.append(len(x)), upright(x, *rest))[1])
    policy = model_of(kind)
    if adapted:
        policy = with_lora(policy, rank=2, seeds=Seeds(0))
    for n in (3, 7, 48, 60):
        rows, settings = queries(n), dataclasses.replace(FULL, slots=64, ignore_eos=n == 60)
        lying = generate(policy, rows, settings, seeds=Seeds(4))
        with matmul.use("stock", upright=64):
            standing = generate(policy, rows, settings, seeds=Seeds(4))
        assert texts(lying) == texts(standing)
        torch.testing.assert_close(lying.logps_BT, standing.logps_BT, rtol=0, atol=2e-5)
    assert {7, 48, 60} <= set(stood)
    assert min(stood) >= matmul.FEWEST


def test_slots_left_over_are_numbers_that_products_are_quick_with() -> None:
    assert [engine.fewer(n) for n in (1, 2, 3, 5, 8, 9, 16, 17, 48, 49, 200)] == [1, 2, 4, 8, 8, 16, 16, 32, 48, 64, 208]


def test_prompts_are_read_in_parts_and_nobody_can_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, rows = tiny(), [[5, 6]] * 6 + [list(range(40, 60))] + [[7, 8, 9]] * 6
    whole = generate(policy, rows, FULL, seeds=Seeds(0))
    for limit in (1, 45, 130):
        monkeypatch.setattr(engine, "READ_AT_ONCE", limit)
        parts = generate(policy, rows, FULL, seeds=Seeds(0))
        assert texts(parts) == texts(whole)
        torch.testing.assert_close(parts.logps_BT, whole.logps_BT, rtol=0, atol=1e-5)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_is_close_and_leaves_the_policy_alone(precision: Any) -> None:
    policy = tiny()
    before = {name: parameter.clone() for name, parameter in policy.model.named_parameters()}
    settings = dataclasses.replace(FULL, precision=precision)
    rollout = generate(policy, queries(21), settings, seeds=Seeds(0))
    check_logps(policy, rollout, settings, within=5e-2)
    scored = policy.score(rollout.tokens).logps_BT.detach() * rollout.tokens.mask_BT
    assert (rollout.logps_BT - scored).abs().max() > 1e-6  # it really was another arithmetic
    for name, parameter in policy.model.named_parameters():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, before[name])


def test_half_precision_models_keep_their_own_arithmetic() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        policy = tiny()
        policy.model.to(dtype)
        rollout = generate(policy, queries(9), FULL, seeds=Seeds(0))
        check_logps(policy, rollout, FULL, within=5e-2)


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({}, True),
        ({"tie_word_embeddings": True}, True),
        ({"hidden_act": "gelu"}, False),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, True),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, False),
    ],
)
def test_a_model_of_other_arithmetic_goes_through_transformers(changes: dict[str, Any], fits: bool) -> None:
    policy = model_of("llama", **changes)
    assert LlamaForward.fits(policy.model) is fits
    settings = dataclasses.replace(FULL, slots=4)
    check_logps(policy, generate(policy, queries(9), settings, seeds=Seeds(0)), settings, within=1e-4)


def test_a_window_shorter_than_the_context_goes_through_transformers() -> None:
    assert not LlamaForward.fits(model_of("mistral", sliding_window=8).model)
    assert LlamaForward.fits(model_of("mistral", sliding_window=64).model)
    assert not LlamaForward.fits(model_of("qwen2", use_sliding_window=True, sliding_window=8, max_window_layers=1).model)
    assert not LlamaForward.fits(model_of("gpt2").model)


# What is sampled


SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.5},
    {"temperature": 3.0},
    {"top_k": 5},
    {"top_p": 0.7},
    {"min_p": 0.2},
    {"repetition_penalty": 1.8},
    {"top_k": 12, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 0.7, "temperature": 1.4},
]


def processors(settings: Sampling) -> Any:
    """What transformers does with logits under the same settings."""
    from transformers.generation import logits_process as lp

    chain = lp.LogitsProcessorList()
    if settings.repetition_penalty != 1:
        chain.append(lp.RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
    chain.append(lp.TemperatureLogitsWarper(settings.temperature))
    if settings.top_k:
        chain.append(lp.TopKLogitsWarper(settings.top_k))
    if settings.top_p < 1:
        chain.append(lp.TopPLogitsWarper(settings.top_p))
    if settings.min_p:
        chain.append(lp.MinPLogitsWarper(settings.min_p))
    return chain


@pytest.mark.parametrize("changes", SETTINGS, ids=lambda c: ", ".join(c) or "plain")
@pytest.mark.parametrize("kind", ["qwen3", "gpt2"])
def test_tokens_come_as_often_as_transformers_own_distribution_says(kind: str, changes: dict[str, Any]) -> None:
    policy, n, query = model_of(kind), 4000, [7, 42, 42, 9]
    settings = dataclasses.replace(FULL, max_new_tokens=1, slots=n, **changes)
    rollout = generate(policy, [query] * n, settings, seeds=Seeds(5))
    ids = torch.tensor([query])
    logps = processors(settings)(ids, policy.model(ids).logits[:, -1].detach())[0].log_softmax(-1)
    drawn = rollout.tokens.response_BT[:, 0]
    torch.testing.assert_close(rollout.logps_BT[:, 0], logps[drawn], rtol=0, atol=1e-4)
    seen, expected = torch.bincount(drawn, minlength=280).double(), logps.double().exp() * n
    assert seen[expected == 0].sum() == 0
    big = expected > 5
    rest_seen, rest = seen[~big].sum(), expected[~big].sum()
    statistic = ((seen - expected)[big].square() / expected[big]).sum() + (
        (rest_seen - rest).square() / rest if rest > 1 else 0.0
    )
    freedom = int(big.sum()) - (0 if rest > 1 else 1)
    # Wilson–Hilferty: the bar is passed once in ten thousand.
    bar = freedom * (1 - 2 / (9 * freedom) + 3.72 * (2 / (9 * freedom)) ** 0.5) ** 3 if freedom else 1e-6
    assert statistic < bar


def test_later_tokens_know_what_was_said_before() -> None:
    policy = model_of("llama")
    settings = dataclasses.replace(FULL, repetition_penalty=3.0, slots=3)
    rollout = generate(policy, queries(7), settings, seeds=Seeds(0))
    for query, response, logps in zip(queries(7), texts(rollout), rollout.logps_BT.tolist(), strict=True):
        for t, token in enumerate(response):
            ids = torch.tensor([query + response[:t]])
            exact = processors(settings)(ids, policy.model(ids).logits[:, -1].detach())[0].log_softmax(-1)
            assert logps[t] == pytest.approx(exact[token].item(), abs=1e-4)


def test_a_stop_string_ends_the_text_and_is_not_part_of_it() -> None:
    policy = tiny()
    settings = dataclasses.replace(FULL, max_new_tokens=30)
    free = [s for group in generate_samples(policy, PROMPTS, n=8, seeds=Seeds(0), settings=settings) for s in group]
    stop = next(text[4:6] for text in (s.text for s in free) if len(text) > 6 and text[4:6].isascii())
    held = dataclasses.replace(settings, stop=(stop, "never said"))
    stopped = [s for group in generate_samples(policy, PROMPTS, n=8, seeds=Seeds(0), settings=held) for s in group]
    hit = 0
    for before, after in zip(free, stopped, strict=True):
        assert after.text == cut(before.text, [stop])
        assert after.tokens == before.tokens[: len(after.tokens)]
        if stop in before.text:
            hit += 1
            assert after.finished
            assert len(after.tokens) <= len(before.tokens)
    assert 0 < hit < len(free)
    assert cut("a b c", []) == "a b c"
    assert cut("a b c", ["c", "b"]) == "a "


def test_bad_probabilities_are_named() -> None:
    from backflip.errors import NumericsError

    policy = tiny()
    with torch.no_grad():
        next(policy.model.parameters())[3] = float("nan")
    with pytest.raises(NumericsError, match="not numbers"):
        generate(policy, [[3, 4]], FULL, seeds=Seeds(0))


def test_every_combination_of_lengths_ends_where_it_should() -> None:
    policy = tiny()
    for n, slots, limit in itertools.product((1, 2, 9), (1, 2, 4, 16), (1, 2, 5)):
        settings = Sampling(max_new_tokens=limit, temperature=1.0, slots=slots, ignore_eos=True)
        rollout = generate(policy, queries(n), settings, seeds=Seeds(n))
        assert rollout.tokens.response_BT.shape == (n, limit)
        assert (rollout.tokens.mask_BT == 1).all()
