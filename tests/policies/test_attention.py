"""Our attention against transformers' own: values, gradients, padding, long texts, and what it leaves behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from tests.tiny_models import tiny, tiny_of

from backflip.maths import matmul
from backflip.policies import attention, ragged
from backflip.policies.language import LanguagePolicy
from backflip.policies.tokens import token_batch

torch.set_num_threads(1)

needs_switch = pytest.mark.skipif(not matmul.available(), reason="this PyTorch has no switch for float32 products")


@pytest.fixture(autouse=True)
def _through_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Llamas too go through transformers here; their other way has tests of its own."""
    monkeypatch.setattr(ragged, "fits", lambda model: False)


def flag() -> str:
    return torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined, no-any-return]


def policy_of(kind: str, context: int = 512) -> LanguagePolicy:
    words = tiny().tokenizer
    shape: dict[str, Any] = {"vocab_size": 280, "max_position_embeddings": context}
    if kind == "gpt2":
        config: Any = transformers.GPT2Config(vocab_size=280, n_embd=32, n_layer=2, n_head=4, n_positions=context)
    else:
        cls = {"llama": transformers.LlamaConfig, "qwen3": transformers.Qwen3Config}[kind]
        config = cls(
            **shape, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            head_dim=8,
        )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LanguagePolicy(transformers.AutoModelForCausalLM.from_config(config).float(), words)


def batch(longest: int) -> Any:
    generator = torch.Generator().manual_seed(0)

    def row(n: int) -> list[int]:
        return torch.randint(2, 280, (n,), generator=generator).tolist()

    return token_batch([row(n) for n in (longest // 2, 3, 9)], [row(n) for n in (longest - longest // 2, 7, 2)], fill=0)


@needs_switch
@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2"])
@pytest.mark.parametrize("length", [20, attention.SHORT, attention.SHORT + 1, 300])
def test_values_and_gradients_are_those_of_the_fused_kernel(kind: str, length: int) -> None:
    policy, tokens = policy_of(kind), batch(length)
    found = {}
    for choice in ("stock", "onednn"):
        policy.model.zero_grad()
        with matmul.use(choice):
            logps_BT = policy.score(tokens).logps_BT
            (logps_BT * tokens.mask_BT).sum().backward()
            if choice == "onednn":
                assert flag() == "bf16"  # the backward pass turned it back on behind the fused kernel
        found[choice] = logps_BT.detach() * tokens.mask_BT, [p.grad.clone() for p in policy.model.parameters()]
    torch.testing.assert_close(found["onednn"][0], found["stock"][0], rtol=0, atol=1e-4)
    for ours, theirs in zip(found["onednn"][1], found["stock"][1], strict=True):
        assert torch.isfinite(ours).all()
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()) + 1e-6)


@needs_switch
def test_the_fused_kernel_runs_by_the_stock_library_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    fused = attention.sdpa_attention_forward
    monkeypatch.setattr(attention, "sdpa_attention_forward", lambda *a, **o: (seen.append(flag()), fused(*a, **o))[1])
    turned: list[bool] = []
    switch = matmul.switch
    monkeypatch.setattr(matmul, "switch", lambda fast: (turned.append(fast), switch(fast))[1])
    policy = policy_of("llama")
    with matmul.use("onednn"):
        logps_BT = policy.score(batch(300)).logps_BT
        assert seen == ["ieee", "ieee"]
        forward = len(turned)
        logps_BT.sum().backward()
    assert turned[forward:] == [False, True, False, True]  # two layers, around each kernel


@needs_switch
def test_one_token_after_a_cache_sees_everything() -> None:
    policy = policy_of("llama")
    ids = torch.arange(2, 14)[None]
    with torch.no_grad(), matmul.use("onednn"):
        whole = policy.model(ids).logits
        start = policy.model(ids[:, :8], use_cache=True)
        step = policy.model(ids[:, 8:9], past_key_values=start.past_key_values, use_cache=True)
        several = policy.model(ids[:, 9:], past_key_values=step.past_key_values, use_cache=True)
    torch.testing.assert_close(step.logits[:, -1], whole[:, 8], rtol=0, atol=1e-4)
    torch.testing.assert_close(several.logits, whole[:, 9:], rtol=0, atol=1e-4)


@needs_switch
def test_dropout_and_half_precision_go_to_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[float] = []
    fused = attention.sdpa_attention_forward

    def spy(*args: Any, dropout: float = 0.0, **options: Any) -> Any:
        calls.append(dropout)
        return fused(*args, dropout=dropout, **options)

    monkeypatch.setattr(attention, "sdpa_attention_forward", spy)
    policy = tiny_of("llama", dropout=0.25)
    with matmul.use("onednn"):
        policy.score(batch(20))
        assert calls == []
        policy.model.train()
        policy.score(batch(20))
        assert calls == [0.25, 0.25]
        policy.model.eval().to(torch.bfloat16)
        policy.score(batch(20))
    assert calls == [0.25, 0.25, 0.0, 0.0]


def test_only_models_that_leave_the_choice_are_changed(tmp_path: Any) -> None:
    policy = tiny()
    assert policy.model.config._attn_implementation == attention.NAME
    eager = tiny().model
    eager.set_attn_implementation("eager")
    attention.adopt(eager)
    assert eager.config._attn_implementation == "eager"
    attention.adopt(torch.nn.Linear(1, 1))
    policy.save(tmp_path / "saved")
    assert attention.NAME not in (tmp_path / "saved" / "config.json").read_text()  # plain transformers must not meet it
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved").config._attn_implementation == "sdpa"
