"""Our forward pass without padding against transformers' with it: values, gradients, shared prompts, adapters, long texts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import transformers
from tests.tiny_models import tiny, tiny_of, tokenizer

from backflip.policies import ragged
from backflip.policies.attention import SHORT
from backflip.policies.language import LanguagePolicy, Scores
from backflip.policies.loading import with_lora
from backflip.policies.tokens import TokenBatch, token_batch
from backflip.rewards.learned import RewardModel
from backflip.seeds import Seeds

torch.set_num_threads(1)

CONFIGS: dict[str, Any] = {
    "llama": (transformers.LlamaConfig, {"num_key_value_heads": 1, "attention_bias": True, "mlp_bias": True}),
    "tied": (transformers.LlamaConfig, {"num_key_value_heads": 4, "tie_word_embeddings": True}),
    "mistral": (transformers.MistralConfig, {"num_key_value_heads": 2, "head_dim": 12, "sliding_window": None}),
    "qwen2": (transformers.Qwen2Config, {"num_key_value_heads": 2}),
    "qwen3": (transformers.Qwen3Config, {"num_key_value_heads": 1, "head_dim": 24}),
}


def policy_of(kind: str) -> LanguagePolicy:
    cls, own = CONFIGS[kind]
    words = tokenizer()
    config = cls(
        vocab_size=len(words), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=600, pad_token_id=words.pad_token_id, eos_token_id=words.eos_token_id, bos_token_id=None,
        **own,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.5 if parameter.dim() == 1 else 0.0, 0.3, generator=generator)
    return LanguagePolicy(model, words, name=kind)


def ids(n: int, seed: int) -> list[int]:
    return torch.randint(2, 280, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


def batch_of(shape: str) -> TokenBatch:
    """Rows of many lengths: every prompt its own, groups that share one, or texts longer than the plain steps serve."""
    if shape == "own":
        queries = [ids(n, n) for n in (1, 7, 3, 5, 2)]
        responses = [ids(n, 10 + n) for n in (4, 1, 9, 2, 6)]
    elif shape == "groups":
        queries = [ids(n, n) for n in (6, 6, 6, 2, 2, 2, 2, 9)]
        responses = [ids(n, 10 + i) for i, n in enumerate((4, 1, 9, 2, 6, 1, 3, 5))]
    else:
        queries = [ids(n, n) for n in (SHORT, SHORT, 3, 3)]
        responses = [ids(n, 10 + i) for i, n in enumerate((30, 40, 9, SHORT))]
        if shape == "long":
            queries = [ids(n, n) for n in (SHORT, 40, 3, 1)]
    return token_batch(queries, responses, fill=0)


def each_way(model: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """By our forward pass first, then by transformers'; no gradient is left from the one to the other."""
    for ours in (True, False):
        model.zero_grad()
        with monkeypatch.context() as patch:
            if not ours:
                patch.setattr(ragged, "fits", lambda model: False)
            yield


def gradients_of(model: Any) -> dict[str, torch.Tensor]:
    """A copy of every gradient by name."""
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def both(policy: LanguagePolicy, batch: TokenBatch, monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[Any, Any]:
    """(scores, gradients) by our forward pass and by transformers'."""
    given = torch.randn(batch.mask_BT.shape, generator=torch.Generator().manual_seed(3)).double()
    results = []
    for _ in each_way(policy.model, monkeypatch):
        scores = policy.score(batch, entropy=True, hidden=True, **options)
        assert scores.hidden_BTD is not None
        ((scores.logps_BT * given + 0.01 * scores.hidden_BTD.sum(-1)) * batch.mask_BT).sum().backward()
        results.append((scores, gradients_of(policy.model)))
    return results[0], results[1]


def check(ours: tuple[Scores, Any], theirs: tuple[Scores, Any], mask_BT: torch.Tensor, *, within: float) -> None:
    for name in ("logps_BT", "entropy_BT", "hidden_BTD"):
        a, b = getattr(ours[0], name).detach(), getattr(theirs[0], name).detach()
        on = mask_BT.bool()
        torch.testing.assert_close(a[on], b[on], rtol=0, atol=within)
    assert ours[1].keys() == theirs[1].keys()
    for name, gradient in ours[1].items():
        expected = theirs[1][name]
        if "embed_tokens" in name:  # transformers forgets the gradient of the padding token's embedding as an input
            gradient, expected = gradient[2:], expected[2:]
        torch.testing.assert_close(gradient, expected, rtol=0, atol=within * (1 + float(expected.abs().max())))


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("shape", ["own", "groups", "long", "long groups"])
def test_values_and_gradients_are_those_of_transformers(kind: str, shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, batch = policy_of(kind), batch_of(shape)
    assert ragged.fits(policy.model)
    # transformers takes the norms' statistics and the softmax of attention in float32 even of a model in float64.
    check(*both(policy, batch, monkeypatch, temperature=0.8), batch.mask_BT, within=3e-5)


@pytest.mark.parametrize("shape", ["groups", "long groups"])
def test_a_shared_prompt_is_read_once_and_changes_nothing(shape: str) -> None:
    policy, batch = policy_of("qwen2"), batch_of(shape)
    line, _ = ragged.line_of_batch(batch, torch.device("cpu"))
    n_alone = int(batch.query_mask_BQ.sum() + batch.mask_BT.sum())
    assert len(line.ids_N) < 0.8 * n_alone
    one = policy.score(batch)
    for row in range(len(batch)):
        alone = policy.score(batch.rows(slice(row, row + 1)))
        n = int(batch.mask_BT[row].sum())
        torch.testing.assert_close(one.logps_BT[row, :n], alone.logps_BT[0, :n], rtol=0, atol=1e-9)


def test_padding_and_order_change_nothing() -> None:
    policy, batch = policy_of("qwen3"), batch_of("own")
    one = policy.score(batch).logps_BT * batch.mask_BT
    order = torch.tensor([3, 0, 4, 2, 1])
    other = policy.score(batch.rows(order)).logps_BT * batch.mask_BT[order]
    torch.testing.assert_close(one[order], other, rtol=0, atol=1e-10)
    queries = ragged._real(batch.query_BQ, batch.query_mask_BQ)
    responses = ragged._real(batch.response_BT, batch.mask_BT)
    wide = token_batch(queries, responses, fill=0, query_width=20, response_width=30)
    torch.testing.assert_close((policy.score(wide).logps_BT * wide.mask_BT)[:, : one.shape[1]], one, rtol=0, atol=1e-10)


def test_adapters_learn_and_frozen_weights_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = with_lora(policy_of("llama"), rank=2, seeds=Seeds(0))
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.5, generator=torch.Generator().manual_seed(2))
    batch = batch_of("groups")
    ours, theirs = both(policy, batch, monkeypatch)
    check(ours, theirs, batch.mask_BT, within=3e-5)
    assert ours[1]
    assert all("lora" in name for name in ours[1])


def test_a_reward_model_reads_the_same_score(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = policy_of("qwen3")
    policy.model.float()
    model = RewardModel.from_policy(policy, seeds=Seeds(0))
    model.model.double()
    rows = [ids(n, n) for n in (3, 1, 12, 7)]
    found = []
    for _ in each_way(model.model, monkeypatch):
        scores = model.scores(rows)
        (scores * torch.tensor([1.0, -2.0, 0.5, 3.0])).sum().backward()
        found.append((scores.detach(), gradients_of(model.model)))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=0, atol=3e-5)
    assert found[0][1].keys() == found[1][1].keys()
    for name, gradient in found[0][1].items():
        expected = found[1][1][name]
        torch.testing.assert_close(gradient, expected, rtol=0, atol=3e-5 * (1 + float(expected.abs().max())), msg=name)


def test_what_it_does_not_compute_goes_to_transformers() -> None:
    assert ragged.fits(tiny().model)
    assert not ragged.fits(tiny_of("gpt2").model)
    assert not ragged.fits(tiny().model.to(torch.bfloat16))
    drops = tiny_of("llama", dropout=0.1).model
    assert ragged.fits(drops.eval())
    assert not ragged.fits(drops.train())
    policy = tiny()
    nothing = token_batch([[], [3, 4]], [[5, 6], [7]], fill=0)  # nobody to choose the first token
    assert policy.score(nothing).logps_BT.shape == (2, 2)


def test_lengths_are_rounded_to_few_and_never_down() -> None:
    lengths = [ragged.rounded(n) for n in range(4097)]
    assert all(n <= r <= max(n + 1, n * 9 / 8) for n, r in enumerate(lengths))
    assert lengths == sorted(lengths)
    assert len({r for r in lengths if 512 < r <= 4096}) == 3 * 8
    for n in range(1, 60):  # fillers change nothing, however many there are
        line = ragged.line_of([ids(n, n)], torch.device("cpu"))
        assert len(line.ids_N) == len(line.blocks[0].query_tokens) == lengths[n]
