"""Attention in spans: who sees whom, against plain loops; a packed line against transformers, on a CPU in the GPU's way."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from tests.policies import test_ragged as ragged_tests
from tests.policies.test_ragged import CONFIGS, batch_of, policy_of
from tests.watch import OneDevice

from backflip.policies import ragged, varlen
from backflip.policies.llama import LlamaForward
from backflip.policies.varlen import Spans

torch.set_num_threads(1)

CPU = torch.device("cpu")


@pytest.fixture
def in_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines attend as they do on a GPU."""
    monkeypatch.setattr(varlen, "wanted", lambda device: True)


def by_loops(q: Any, k: Any, v: Any, begin_q: Any, begin_k: Any, longest_q: int, longest_k: int) -> torch.Tensor:
    """Query i of a row with n queries and m keys sees its keys 0 … m − n + i."""
    groups, out = q.shape[1] // k.shape[1], []
    for r in range(len(begin_q) - 1):
        rows, keys = slice(begin_q[r], begin_q[r + 1]), slice(begin_k[r], begin_k[r + 1])
        n, m = rows.stop - rows.start, keys.stop - keys.start
        for i in range(n):
            seen = slice(keys.start, keys.start + m - n + i + 1)
            for h in range(q.shape[1]):
                scores = k[seen, h // groups] @ q[rows.start + i, h] / q.shape[-1] ** 0.5
                out.append(scores.softmax(0) @ v[seen, h // groups])
    return torch.stack(out).view(len(q), q.shape[1], -1)


def test_spans_of_the_example_in_the_docstring() -> None:
    spans = Spans.of([4], [0, 0], [3, 2], 10, CPU)
    assert spans.begin_q.tolist() == [0, 4, 7, 9, 10]
    assert spans.begin_k.tolist() == [0, 4, 11, 17, 18]
    assert (spans.longest_q, spans.longest_k) == (4, 7)
    assert spans.key_tokens is not None
    assert spans.key_tokens.tolist() == [0, 1, 2, 3, *(0, 1, 2, 3, 4, 5, 6), *(0, 1, 2, 3, 7, 8), 9]
    alone = Spans.of([2, 3], [], [], 5, CPU)
    assert alone.key_tokens is None
    assert alone.begin_q.tolist() == alone.begin_k.tolist() == [0, 2, 5]
    assert alone.begin_q.dtype == torch.int32


def test_the_last_query_sees_the_last_key() -> None:
    # Equal scores, and values that name their key: what comes out is the share each key has.
    q, k, v = torch.zeros(3, 1, 4), torch.zeros(5, 1, 4), torch.eye(5)[:, :4].unsqueeze(1)
    begin_q, begin_k = torch.tensor([0, 2, 3], dtype=torch.int32), torch.tensor([0, 4, 5], dtype=torch.int32)
    third, fourth = 1 / 3, 1 / 4
    expected = torch.tensor([[third, third, third, 0], [fourth] * 4, [0, 0, 0, 0]])  # the third has the fifth key, without name
    out = varlen.by_rectangle(q, k, v, begin_q, begin_k, 2, 4).squeeze(1)
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize(("prompts", "owner", "responses"), [([5, 1, 7], [], []), ([5, 2], [0, 0, 1, 1, 0], [3, 1, 6, 2, 1])])
def test_the_rectangle_is_what_loops_compute(kv_heads: int, prompts: list[int], owner: list[int], responses: list[int]) -> None:
    n = ragged.rounded(sum(prompts) + sum(responses)) + 2
    spans = Spans.of(prompts, owner, responses, n, CPU)
    generator = torch.Generator().manual_seed(0)
    line = [torch.randn(n, heads, 8, generator=generator).double().requires_grad_() for heads in (4, kv_heads, kv_heads)]
    given = torch.randn(n, 32, generator=generator).double()
    found = varlen.attend(*line, spans, torch.float64)
    keys = line[1:] if spans.key_tokens is None else [t[spans.key_tokens] for t in line[1:]]
    expected = by_loops(line[0], *keys, spans.begin_q, spans.begin_k, 0, 0).flatten(1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    ours, theirs = (torch.autograd.grad((out * given).sum(), line) for out in (found, expected))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_a_token_used_often_gets_its_whole_gradient_in_half_precision() -> None:
    x = torch.zeros(2, 1, 1, dtype=torch.bfloat16, requires_grad=True)
    index = torch.tensor([0] * 1000 + [1])
    varlen._Gather.apply(x, index).sum().backward()
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [1000.0, 1.0]  # added up in bfloat16 it would stop at 256


def test_half_precision_is_close_and_comes_back_as_it_was() -> None:
    spans = Spans.of([9, 4], [0, 1, 1], [3, 5, 2], 24, CPU)
    line = [torch.randn(24, heads, 8, generator=torch.Generator().manual_seed(heads)) for heads in (4, 2, 2)]
    exact, half = (varlen.attend(*line, spans, dtype) for dtype in (torch.float32, torch.bfloat16))
    assert half.dtype == torch.float32
    assert 1e-5 < float((exact - half).abs().max()) < 0.03


@pytest.mark.usefixtures("in_spans")
@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("shape", ["own", "groups", "long", "long groups"])
def test_values_and_gradients_are_those_of_transformers(kind: str, shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, batch = policy_of(kind), batch_of(shape)
    assert ragged.fits(policy.model)
    line, _ = ragged.line_of_batch(batch, CPU)
    assert line.spans is not None
    assert line.blocks == ()
    assert (line.spans.key_tokens is not None) == ("groups" in shape)
    ragged_tests.check(*ragged_tests.both(policy, batch, monkeypatch, temperature=0.8), batch.mask_BT, within=3e-5)


@pytest.mark.usefixtures("in_spans")
def test_everything_that_holds_of_rectangles_holds_of_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    ragged_tests.test_a_shared_prompt_is_read_once_and_changes_nothing("groups")
    ragged_tests.test_padding_and_order_change_nothing()
    ragged_tests.test_adapters_learn_and_frozen_weights_do_not(monkeypatch)
    ragged_tests.test_a_reward_model_reads_the_same_score(monkeypatch)
    line = ragged.line_of([[5, 6, 7]], CPU)
    assert line.spans is not None


@pytest.mark.usefixtures("in_spans")
def test_a_model_in_half_precision_is_read_too(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, batch = policy_of("qwen2"), batch_of("groups")
    policy.model.float()
    exact = policy.score(batch).logps_BT.detach()
    policy.model.bfloat16()
    half = policy.score(batch, entropy=True)
    assert half.logps_BT.dtype == torch.float32
    on = batch.mask_BT.bool()
    assert 1e-4 < float((half.logps_BT.detach() - exact)[on].abs().median()) < 0.2
    monkeypatch.setattr(ragged, "fits", lambda model: False)
    theirs = policy.score(batch, entropy=True)
    # Both round, in different places.
    assert float((half.logps_BT - theirs.logps_BT).detach()[on].abs().median()) < 0.2


@pytest.mark.usefixtures("in_spans")
@pytest.mark.parametrize("shape", ["own", "groups"])
def test_everything_is_on_the_device(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, batch, meta = policy_of("qwen3"), batch_of(shape), torch.device("meta")
    monkeypatch.setattr(torch, "autocast", lambda *args, **options: contextlib.nullcontext())  # which this device has not
    policy.model.to(meta)
    line, wanted_W = ragged.line_of_batch(batch, meta)
    with OneDevice():
        hidden = ragged.read(LlamaForward(policy.model), line, wanted_W)
        hidden.sum().backward()
    assert hidden.device == meta
    assert hidden.shape == (int(batch.mask_BT.sum()), 32)


@pytest.mark.usefixtures("in_spans")
def test_mixed_precision_attends_in_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, batch = policy_of("llama"), batch_of("groups")
    policy.model.float()
    monkeypatch.setattr(varlen, "by_flash", lambda q, *rest: (seen.append(q.dtype), varlen.by_rectangle(q, *rest))[1])
    monkeypatch.setattr(varlen, "flash_serves", lambda device, dtype, *sizes: dtype == torch.bfloat16)
    seen: list[torch.dtype] = []
    exact = policy.score(batch).logps_BT.detach()
    assert seen == []  # float32 has no flash attention
    with torch.autocast("cpu", torch.bfloat16):
        scores = policy.score(batch)
    (scores.logps_BT * batch.mask_BT).sum().backward()
    assert seen == [torch.bfloat16] * 2
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in policy.model.parameters())
    assert 1e-4 < float((scores.logps_BT.detach() - exact)[batch.mask_BT.bool()].abs().median()) < 0.2


def aligned_to_the_top(q: Any, k: Any, v: Any, begin_q: Any, begin_k: Any, longest_q: int, longest_k: int) -> torch.Tensor:
    """What an old flash attention did: query i sees keys 0 … i."""
    ends = begin_k[:-1] + begin_q.diff()
    rows = [torch.arange(int(a), int(b)) for a, b in zip(begin_k[:-1], ends, strict=True)]
    seen = torch.cat(rows)
    return varlen.by_rectangle(q, k[seen], v[seen], begin_q, begin_q, longest_q, longest_q)


def refuses(*args: Any) -> torch.Tensor:
    """What a build without the kernel does."""
    raise RuntimeError("no kernel")


def test_another_flash_attention_than_ours_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varlen, "by_flash", varlen.by_rectangle)
    assert varlen.agree(CPU, torch.bfloat16, 4, 2, 8)
    for other in (aligned_to_the_top, refuses):
        monkeypatch.setattr(varlen, "by_flash", other)
        assert not varlen.agree(CPU, torch.bfloat16, 4, 2, 8)
    monkeypatch.setattr(varlen, "by_flash", lambda q, k, v, *rest: varlen.by_rectangle(q, k.detach(), v, *rest) + 0 * k.sum())
    assert not varlen.agree(CPU, torch.bfloat16, 4, 2, 8)  # right values, wrong gradients
    assert not varlen.flash_serves(CPU, torch.bfloat16, 4, 2, 8)


def test_the_installed_flash_attention_can_be_called_as_it_is() -> None:
    import inspect

    attention = pytest.importorskip("torch.nn.attention.varlen", reason="this PyTorch has no varlen attention")
    parameters = inspect.signature(attention.varlen_attn).parameters
    assert list(parameters)[:7] == ["query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"]
    assert {"window_size", "enable_gqa"} <= parameters.keys()


@pytest.mark.parametrize("knows", [True, False])
def test_versions_that_share_key_heads_unasked_are_not_asked(knows: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    attention = pytest.importorskip("torch.nn.attention.varlen", reason="this PyTorch has no varlen attention")
    asked: list[dict[str, Any]] = []

    def newer(q: Any, k: Any, v: Any, a: Any, b: Any, c: int, d: int, *, window_size: Any, enable_gqa: bool = False) -> Any:
        asked.append({"window_size": window_size, "enable_gqa": enable_gqa})
        return varlen.by_rectangle(q, k, v, a, b, c, d)

    def older(q: Any, k: Any, v: Any, a: Any, b: Any, c: int, d: int, *, window_size: Any) -> Any:
        asked.append({"window_size": window_size})
        return varlen.by_rectangle(q, k, v, a, b, c, d)

    monkeypatch.setattr(attention, "varlen_attn", newer if knows else older)
    varlen._asks_for_sharing.cache_clear()
    try:
        assert varlen.agree(CPU, torch.bfloat16, 4, 2, 8)
    finally:
        varlen._asks_for_sharing.cache_clear()
    assert asked == [{"window_size": (-1, 0)} | ({"enable_gqa": True} if knows else {})]
