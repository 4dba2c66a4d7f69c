"""What only a CUDA device can show: recorded steps against plain ones, flash attention against transformers, memory that is
used again. The same logic without the device is tested in rollout/test_fixed.py and policies/test_varlen.py."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import transformers

from backflip.policies import ragged, varlen
from backflip.policies.language import LanguagePolicy
from backflip.policies.loading import with_lora
from backflip.policies.transfer import send
from backflip.policies.varlen import Spans
from backflip.rollout import fixed, kept
from backflip.rollout.local import Rollout, generate
from backflip.seeds import Seeds
from backflip.settings import Sampling
from tests.policies import test_ragged as ragged_tests
from tests.rollout.test_engine import FULL, KINDS, check_logps, model_of, queries, texts
from tests.rollout.test_fixed import SETTINGS
from tests.tiny_models import tokenizer

pytestmark = pytest.mark.gpu

ROWS = queries(60)


@pytest.fixture(autouse=True)
def small(cuda: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small enough sizes for short texts to meet several of them."""
    for name, value in (("FEWEST", 2), ("NARROW", 8), ("LOOK_EVERY", 3)):
        monkeypatch.setattr(fixed, name, value)


def on(device: torch.device, policy: LanguagePolicy, dtype: torch.dtype = torch.float32) -> LanguagePolicy:
    policy.model.to(device, dtype)
    return policy


def several(policy: LanguagePolicy, settings: Sampling) -> Rollout:
    """The third rollout of the same, so that every shape has been warmed up, recorded and replayed."""
    return [generate(policy, ROWS, settings, seeds=Seeds(1)) for _ in range(3)][-1]


@pytest.mark.parametrize("changes", SETTINGS, ids=lambda c: ", ".join(c) or "plain")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_replayed_steps_are_the_plain_ones(
    changes: dict[str, Any], dtype: torch.dtype, cuda: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dataclasses.replace(FULL, slots=8, **changes)
    policy = on(cuda, model_of("qwen3"), dtype)
    replayed = several(policy, settings)
    graphs = kept.Kept.of(policy.model, None).desks[0].graphs
    if "max_new_tokens" not in changes:
        assert graphs.recorded
    kept._KEPT.clear()
    monkeypatch.setattr(fixed, "recorder_for", lambda device: None)
    plain = generate(policy, ROWS, settings, seeds=Seeds(1))
    # A library may choose another product under a recording, which now and then turns a token over.
    same = torch.tensor([a == b for a, b in zip(texts(replayed), texts(plain), strict=True)], device=cuda)
    assert same.float().mean() > 0.9
    n = min(replayed.logps_BT.shape[1], plain.logps_BT.shape[1])
    within = 1e-4 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(replayed.logps_BT[same, :n], plain.logps_BT[same, :n], rtol=0, atol=within)


@pytest.mark.parametrize("kind", KINDS[:4])
def test_the_gpu_writes_what_the_cpu_writes(kind: str, cuda: torch.device) -> None:
    greedy = dataclasses.replace(FULL, temperature=1e-4, slots=8)
    policy = model_of(kind)
    ours = texts(generate(policy, ROWS, greedy, seeds=Seeds(0)))
    assert texts(several(on(cuda, policy), greedy)) == ours
    check_logps(policy, several(policy, FULL), FULL, within=1e-4)


@pytest.mark.parametrize("adapted", [False, True])
def test_bfloat16_follows_the_weights(adapted: bool, cuda: torch.device) -> None:
    policy = on(cuda, model_of("llama"))
    if adapted:
        policy = with_lora(policy, rank=2, seeds=Seeds(0))
        policy.model.to(cuda)
    settings = dataclasses.replace(FULL, precision="bfloat16")
    for _ in range(3):
        rollout = generate(policy, ROWS, settings, seeds=Seeds(0))
        scored_BT = policy.score(rollout.tokens).logps_BT.detach()
        mask_BT = rollout.tokens.mask_BT
        assert ((rollout.logps_BT - scored_BT) * mask_BT).abs().sum() / mask_BT.sum() < 0.05
        with torch.no_grad():
            for name, parameter in policy.parameters():
                if "norm" not in name:
                    parameter.add_(0.1 * torch.randn_like(parameter))


def test_rollouts_use_their_memory_again(cuda: torch.device) -> None:
    policy, held = on(cuda, model_of("mistral")), []
    for n in range(8):
        generate(policy, ROWS, dataclasses.replace(FULL, slots=16), seeds=Seeds(n))
        torch.cuda.synchronize()
        held.append(torch.cuda.memory_allocated())
    assert len(set(held[3:])) == 1
    kept._KEPT.clear()
    assert torch.cuda.memory_allocated() < held[-1]


def test_this_gpu_has_a_flash_attention_that_aligns_as_ours(cuda: torch.device) -> None:
    if torch.cuda.get_device_capability(cuda) < (8, 0):
        pytest.skip("flash attention needs a GPU of compute capability 8.0")
    for heads, kv_heads, size in ((4, 4, 64), (14, 2, 64), (32, 8, 128)):
        assert varlen.flash_serves(cuda, torch.bfloat16, heads, kv_heads, size)
    assert not varlen.flash_serves(cuda, torch.float32, 4, 4, 64)


def test_flash_attention_is_the_rectangle(cuda: torch.device) -> None:
    spans = Spans.of([70, 300], [0, 0, 1, 1, 1], [40, 1, 200, 33, 8], 700, cuda)
    line = [torch.randn(700, heads, 64, device=cuda, requires_grad=True) for heads in (8, 2, 2)]
    given = torch.randn(700, 512, device=cuda)
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        out = varlen.attend(*line, spans, dtype)
        results.append([out.detach(), *torch.autograd.grad((out * given).sum(), line)])
    for a, b in zip(*results, strict=True):
        assert float((a - b).norm() / a.norm()) < 0.02


@pytest.mark.parametrize("kind", ragged_tests.CONFIGS)
@pytest.mark.parametrize("shape", ["own", "groups", "long", "long groups"])
def test_a_packed_update_is_that_of_transformers(
    kind: str, shape: str, cuda: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = on(cuda, ragged_tests.policy_of(kind))
    batch = ragged_tests.batch_of(shape).to(cuda)
    assert ragged.line_of_batch(batch, cuda)[0].spans is not None
    given = torch.randn(batch.mask_BT.shape, device=cuda) * batch.mask_BT
    found = []
    for _ in ragged_tests.each_way(policy.model, monkeypatch):
        scores = policy.score(batch, entropy=True)
        (scores.logps_BT * given).sum().backward()
        found.append((scores, ragged_tests.gradients_of(policy.model)))
    (ours, gradients), (theirs, expected) = found
    seen = batch.mask_BT.bool()
    torch.testing.assert_close(ours.logps_BT[seen], theirs.logps_BT[seen], rtol=0, atol=2e-3)
    for name, gradient in gradients.items():
        rows = slice(2, None) if "embed_tokens" in name else slice(None)  # transformers forgets that of the padding token
        assert float((gradient - expected[name])[rows].norm() / expected[name][rows].norm()) < 1e-3, name


def test_a_packed_update_in_bfloat16_is_close_and_needs_less_memory(cuda: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    words = tokenizer()
    config = transformers.Qwen2Config(
        vocab_size=len(words), hidden_size=512, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=8,
        num_key_value_heads=2, max_position_embeddings=2048, pad_token_id=words.pad_token_id, eos_token_id=words.eos_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    policy = on(cuda, LanguagePolicy(transformers.AutoModelForCausalLM.from_config(config), words), torch.bfloat16)
    prompts = [ragged_tests.ids(n, n) for n in (300, 40)]
    batch = ragged_tests.token_batch(
        [prompts[i // 8] for i in range(16)], [ragged_tests.ids(20 + 37 * i % 500, i) for i in range(16)], fill=0
    ).to(cuda)
    given = torch.randn(batch.mask_BT.shape, device=cuda) * batch.mask_BT
    found, peaks = [], []
    for _ in ragged_tests.each_way(policy.model, monkeypatch):
        torch.cuda.reset_peak_memory_stats()
        scores = policy.score(batch)
        (scores.logps_BT * given).sum().backward()
        peaks.append(torch.cuda.max_memory_allocated())
        found.append((scores.logps_BT.detach(), ragged_tests.gradients_of(policy.model)))
    (ours, gradients), (theirs, expected) = found
    seen = batch.mask_BT.bool()
    assert float((ours - theirs)[seen].abs().mean()) < 0.02
    for name, gradient in gradients.items():
        wide, other = gradient.float(), expected[name].float()
        assert float((wide - other).norm() / other.norm()) < 0.1, name
    assert peaks[0] < peaks[1]


def test_transfers_arrive(cuda: torch.device) -> None:
    rows = [torch.arange(100_000) + i for i in range(20)]
    sent = [send(row, cuda) for row in rows]  # the pinned copies are gone before the transfers are over
    torch.cuda.synchronize()
    assert all(torch.equal(a, b.cpu()) for a, b in zip(rows, sent, strict=True))
    assert send(sent[0], cuda) is sent[0]
    assert send(torch.zeros(0), cuda).device == cuda
