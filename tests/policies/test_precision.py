"""Products in bfloat16 beside weights in float32, and layers that are computed again: what may change and what may not."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tests.tiny_models import gradients, tiny, tiny_of

from backflip.errors import ModelError
from backflip.maths.kernels import head_logps, rms_norm
from backflip.policies.language import LanguagePolicy
from backflip.policies.llama import LlamaForward
from backflip.policies.loading import with_lora
from backflip.policies.recompute import recompute
from backflip.policies.tokens import TokenBatch, token_batch
from backflip.rewards.learned import RewardModel
from backflip.seeds import Seeds

torch.set_num_threads(1)

QUERIES = [[5, 6, 7], [8, 9], [5, 6, 7], [5, 6, 7]]
RESPONSES = [[10, 11, 12, 13], [14], [15, 16], [17, 18, 19]]


def batch(queries: Any = QUERIES) -> TokenBatch:
    return token_batch(queries, RESPONSES, fill=0)


def kinds() -> dict[str, LanguagePolicy]:
    """A policy of every way through the code."""
    return {
        "llama": tiny(),
        "qwen2": tiny_of("qwen2"),
        "gpt2": tiny_of("gpt2"),
        "lora": with_lora(tiny(), rank=4, seeds=Seeds(3)),
    }


def learned(policy: LanguagePolicy, *, half: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Log-probabilities of the batch and the gradient of their mean."""
    for _, parameter in policy.parameters():
        parameter.grad = None
    given = batch()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        logps_BT = policy.score(given).logps_BT
    (logps_BT * given.mask_BT).sum().div(10).backward()
    return (logps_BT * given.mask_BT).detach(), gradients(policy.parameters())


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2", "lora"])
def test_half_precision_is_near_and_its_gradients_are_float32(kind: str) -> None:
    policy = kinds()[kind]
    if kind == "lora":  # B = 0 would let no gradient through to A
        with torch.no_grad():
            for name, parameter in policy.parameters():
                if "lora_B" in name:
                    parameter.normal_(0.0, 0.1, generator=torch.Generator().manual_seed(0))
    exact, slopes = learned(policy, half=False)
    rough, rough_slopes = learned(policy, half=True)
    assert rough.dtype == torch.float32
    assert 1e-6 < (rough - exact).abs().max() < 5e-2, "bfloat16 shows, and not more than it should"
    assert slopes.keys() == rough_slopes.keys()
    for name, slope in slopes.items():
        assert rough_slopes[name].dtype == torch.float32
        if slope.norm() > 1e-4:
            likeness = torch.nn.functional.cosine_similarity(slope.flatten(), rough_slopes[name].flatten(), dim=0)
            assert likeness > 0.98, name
            assert rough_slopes[name].norm() == pytest.approx(slope.norm().item(), rel=0.1), name


def test_our_mixed_precision_is_no_rougher_than_transformers_own() -> None:
    policy, given = tiny_of("llama"), batch()
    whole = policy.score(given).logps_BT
    with torch.autocast("cpu", torch.bfloat16):
        ours = policy.score(given).logps_BT
        width = given.response_BT.shape[1]
        logits = policy.model(input_ids=given.ids_BL, attention_mask=given.attention_BL).logits[:, -width - 1 : -1]
    theirs = logits.float().log_softmax(-1).gather(-1, given.response_BT.unsqueeze(-1)).squeeze(-1)
    mask = given.mask_BT.bool()
    assert (ours - whole)[mask].abs().mean() < 1.5 * (theirs - whole)[mask].abs().mean()


def test_a_reward_model_scores_and_learns_in_half_precision() -> None:
    model = RewardModel.from_policy(tiny(), seeds=Seeds(0))
    rows = [[5, 6, 7], [8, 9, 10, 11]]
    exact = model.scores(rows).detach()
    with torch.autocast("cpu", torch.bfloat16):
        rough = model.scores(rows)
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().max() < 5e-2
    rough.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.model.score.parameters())


def test_norms_and_heads_take_their_precision_from_what_is_asked() -> None:
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    normed = rms_norm(x, torch.ones(8), 1e-5, dtype=torch.bfloat16)
    assert normed.dtype == torch.bfloat16
    normed.float().sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.float32
    weight = torch.randn(20, 8, generator=torch.Generator().manual_seed(1), requires_grad=True)
    tokens = torch.tensor([1, 2, 19])
    for chunk in (10**6, 20):  # at once, and a row at a time
        logps, entropy = head_logps(x.detach(), weight, tokens, dtype=torch.bfloat16, chunk=chunk)
        exact, exact_entropy = head_logps(x.detach(), weight, tokens)
        assert logps.dtype == torch.float32
        assert entropy is not None
        assert exact_entropy is not None
        torch.testing.assert_close(logps, exact, rtol=0, atol=5e-2)
        torch.testing.assert_close(entropy, exact_entropy, rtol=0, atol=5e-2)
        (slope,) = torch.autograd.grad(logps.sum(), weight)
        (exact_slope,) = torch.autograd.grad(exact.sum(), weight)
        assert slope.dtype == torch.float32
        torch.testing.assert_close(slope, exact_slope, rtol=0, atol=5e-2)


def test_a_frozen_copy_for_sampling_sees_the_weights_of_its_making() -> None:
    policy = with_lora(tiny(), rank=4, seeds=Seeds(3))
    forward = LlamaForward(policy.model, dtype=torch.bfloat16, frozen=True)
    x = forward.embed(torch.tensor([5, 6]))
    assert x.dtype == torch.float32, "what flows between layers keeps the model's precision"
    before = forward.layers[0].q(forward.layers[0].norm(x))
    assert before.dtype == torch.bfloat16
    with torch.no_grad():
        for _, parameter in policy.parameters():
            parameter.add_(1.0)
    assert torch.equal(forward.layers[0].q(forward.layers[0].norm(x)), before)


# Layers computed again


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2", "lora"])
@pytest.mark.parametrize("half", [False, True])
def test_recomputing_changes_no_number(kind: str, half: bool) -> None:
    policy = kinds()[kind]
    twin = LanguagePolicy(copy.deepcopy(policy.model), policy.tokenizer)
    recompute(twin.model)
    logps, slopes = learned(policy, half=half)
    again, again_slopes = learned(twin, half=half)
    torch.testing.assert_close(again, logps, rtol=0, atol=1e-6)
    for name, slope in slopes.items():
        torch.testing.assert_close(again_slopes[name], slope, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_recomputing_keeps_less(kind: str) -> None:
    kept = []
    for again in (False, True):
        policy = kinds()[kind]
        if again:
            recompute(policy.model)
        saved = []

        def note(x: torch.Tensor, into: list[int] = saved) -> torch.Tensor:
            into.append(x.numel())
            return x

        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            policy.score(batch())
        kept.append(sum(saved))
    assert kept[1] < 0.7 * kept[0]


def test_recomputing_draws_no_dropout() -> None:
    policy = tiny_of("gpt2", dropout=0.5)
    exact, _ = learned(policy, half=False)
    recompute(policy.model)
    again, _ = learned(policy, half=False)
    torch.testing.assert_close(again, exact, rtol=0, atol=1e-6)


def test_a_model_that_cannot_recompute_says_so() -> None:
    with pytest.raises(ModelError, match=r"cannot recompute its layers .* set gradient_checkpointing to false"):
        recompute(torch.nn.Linear(2, 2))
