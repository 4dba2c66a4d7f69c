"""Drawing from a mask policy's nucleus: the set by hand, the distribution, and that scoring asks for the same choice."""

from __future__ import annotations

import math

import pytest
import torch
from tests.tiny_models import QUERIES, tiny, tiny_of

from backflip.maths.bits import counted, unpacked
from backflip.policies.language import LanguagePolicy
from backflip.rollout.local import generate
from backflip.rollout.masking import Nucleus, nucleus
from backflip.seeds import Seeds
from backflip.settings import Sampling

torch.set_num_threads(1)

SAMPLING = Sampling(temperature=0.8, max_new_tokens=7)


def test_the_nucleus_by_hand() -> None:
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1], [0.97, 0.01, 0.01, 0.01]]).log()
    assert nucleus(logits, 0.65).int().tolist() == [[1, 1, 0, 0], [1, 0, 0, 0]]
    assert nucleus(logits, 0.65, keep=3).int().tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]], "those that tie stay together"
    assert nucleus(logits, 0.65, keep=9).all()
    assert nucleus(logits, 1.0).all()


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_tokens_come_from_the_nucleus_and_are_scored_as_they_were_drawn(kind: str) -> None:
    policy, other = tiny_of(kind), tiny_of(kind, seed=5)
    rollout = generate(policy, QUERIES * 4, SAMPLING, seeds=Seeds(0), mask=Nucleus(other, 0.5, keep=2))
    assert rollout.allowed_BTS is not None
    allowed_BTV = unpacked(rollout.allowed_BTS, policy.embeddings)
    on_BT = rollout.tokens.mask_BT.bool()
    drawn_BT = allowed_BTV.gather(-1, rollout.tokens.response_BT.unsqueeze(-1)).squeeze(-1)
    assert drawn_BT[on_BT].all()
    counts = counted(rollout.allowed_BTS)[on_BT]
    assert 2 <= counts.min() < counts.max() < policy.embeddings
    scores = policy.score(rollout.tokens, temperature=0.8, allowed_BTS=rollout.allowed_BTS, entropy=True)
    torch.testing.assert_close(scores.logps_BT[on_BT], rollout.logps_BT[on_BT], atol=1e-5, rtol=0)
    assert scores.entropy_BT is not None
    assert (scores.entropy_BT[on_BT] <= counts.double().log() + 1e-5).all()
    whole = policy.score(rollout.tokens, temperature=0.8).logps_BT
    assert (scores.logps_BT >= whole - 1e-5)[on_BT].all(), "what is forbidden leaves its probability to the others"
    # The set is the one the mask policy has where it reads the same text.
    ids, where = rollout.tokens.ids_BL, rollout.tokens.attention_BL
    position = (where.cumsum(1) - where).long()
    logits = other.model(input_ids=ids, attention_mask=where, position_ids=position).logits[:, QUERIES_WIDTH - 1 : -1] / 0.8
    assert torch.equal(nucleus(logits, 0.5, keep=2)[on_BT], allowed_BTV[on_BT])


QUERIES_WIDTH = max(map(len, QUERIES))


def test_a_mask_of_everything_is_no_mask() -> None:
    policy = tiny()
    plain = generate(policy, QUERIES, SAMPLING, seeds=Seeds(1))
    masked = generate(policy, QUERIES, SAMPLING, seeds=Seeds(1), mask=Nucleus(tiny(3), 1.0))
    assert torch.equal(plain.tokens.response_BT, masked.tokens.response_BT)
    torch.testing.assert_close(plain.logps_BT, masked.logps_BT, atol=1e-5, rtol=0)


def test_the_gradient_is_that_of_the_restricted_distribution() -> None:
    policy = tiny()
    rollout = generate(policy, QUERIES, SAMPLING, seeds=Seeds(2), mask=Nucleus(tiny(3), 0.4))
    on_BT = rollout.tokens.mask_BT.bool()

    def gradient(policy: LanguagePolicy, *, by_hand: bool) -> torch.Tensor:
        weight = policy.model.lm_head.weight
        if by_hand:
            logits_BTV = policy.form.read(policy.model, rollout.tokens, position_ids="mask", hidden=False).logits_BTV / 0.8
            assert rollout.allowed_BTS is not None
            allowed_BTV = unpacked(rollout.allowed_BTS, logits_BTV.shape[-1])
            inside = logits_BTV.masked_fill(~allowed_BTV, -math.inf)[on_BT].logsumexp(-1)
            logps = logits_BTV.gather(-1, rollout.tokens.response_BT.unsqueeze(-1)).squeeze(-1)[on_BT] - inside
        else:
            logps = policy.score(rollout.tokens, temperature=0.8, allowed_BTS=rollout.allowed_BTS).logps_BT[on_BT]
        return torch.autograd.grad(logps.sum(), weight)[0]

    torch.testing.assert_close(gradient(policy, by_hand=False), gradient(policy, by_hand=True), atol=1e-4, rtol=1e-4)


def test_company_and_slots_change_nothing() -> None:
    policy, mask = tiny(), Nucleus(tiny(3), 0.5)
    together = generate(policy, QUERIES, SAMPLING, seeds=Seeds(3), mask=mask)
    alone = generate(policy, QUERIES[2:3], SAMPLING, seeds=Seeds(3), first=2, mask=mask)
    width = alone.tokens.response_BT.shape[1]
    assert together.allowed_BTS is not None
    assert alone.allowed_BTS is not None
    assert torch.equal(together.tokens.response_BT[2, :width], alone.tokens.response_BT[0])
    assert torch.equal(together.allowed_BTS[2, :width], alone.allowed_BTS[0])
    named = generate(policy, [QUERIES[2], QUERIES[0]], SAMPLING, seeds=Seeds(3), rows=[2, 0])
    plain = generate(policy, QUERIES, SAMPLING, seeds=Seeds(3))
    shorter = min(named.tokens.response_BT.shape[1], plain.tokens.response_BT.shape[1])
    assert torch.equal(named.tokens.response_BT[:, :shorter], plain.tokens.response_BT[[2, 0], :shorter])
