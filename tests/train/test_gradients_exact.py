"""The gradient of every composition, averaged over many batches, against the exact one of a world that can be enumerated.

What is unbiased must agree with −∇J up to chance; what is biased by design must show the bias that theory gives it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from backflip.lab.exact_enumeration import exact_gradient
from backflip.lab.exact_sampled import gradients_of as sampled
from backflip.seeds import Seeds
from backflip.settings import Online, Optim, Sampling
from backflip.worlds.exact import ExactWorld

torch.set_num_threads(1)

BETA, GROUP, BATCHES = 0.3, 4, 100
WORLD = ExactWorld(vocab=3, length=2, prompts=2, seed=3)
TABLE = WORLD.reference + 0.4 * torch.randn(WORLD.reference.shape, generator=torch.Generator().manual_seed(1)).double()
FREE: dict[str, Any] = {"critic": "none", "policy_loss": "reinforce", "num_generations": GROUP}
UNBIASED: dict[str, dict[str, Any]] = {
    "reinforce": FREE | {"advantage_estimator": "return", "num_generations": 1},
    "reinforce with a baseline": FREE | {"advantage_estimator": "return-baseline"},
    "remax": FREE | {"advantage_estimator": "remax"},
    "rloo": FREE | {"advantage_estimator": "rloo"},
    "rloo by a ratio": FREE | {"advantage_estimator": "rloo", "policy_loss": "ppo"},
    "rloo by a sequence's ratio": FREE | {"advantage_estimator": "rloo", "policy_loss": "gspo"},
    "rloo by a clipped weight": FREE | {"advantage_estimator": "rloo", "policy_loss": "cispo"},
    "rloo by a soft gate": FREE | {"advantage_estimator": "rloo", "policy_loss": "sapo"},
    "actor–critic": {"policy_loss": "reinforce", "advantage_estimator": "gae", "lam": 1.0, "vf_coef": 0.0},
}


class Found(NamedTuple):
    """Mean and standard error of the gradient of the table over many batches."""

    mean: Tensor
    error: Tensor

    def chance(self, expected: Tensor) -> tuple[float, float]:
        """The largest distance from `expected` in standard errors, and the mean of their squares, which is 1 by chance."""
        varies = self.error > 1e-12
        z = (self.mean - expected)[varies] / self.error[varies]
        return z.abs().max().item(), z.square().mean().item()


def gradients_of(changes: dict[str, Any], batches: int = BATCHES) -> Found:
    defaults = {
        "batch_size": 32, "ppo_epochs": 1, "kl_coef": BETA, "kl_controller": "fixed", "whiten_rewards": False,
        "whiten_advantages": False, "missing_penalty": None, "averaging": "seq-mean-token-sum",
        "sampling": Sampling(max_new_tokens=WORLD.length + 1, temperature=1.0),
        "optim": Optim(learning_rate=0.0, max_grad_norm=None, micro_batch_size=64),
    }  # fmt: skip
    settings = Online(steps=batches, save_every=batches, **(defaults | changes))
    downhill = -sampled(WORLD, TABLE, settings, seeds=Seeds(8))
    return Found(downhill.mean(0), downhill.std(0) / batches**0.5)


def exact(beta: float = BETA) -> Tensor:
    """−∇ of the mean over prompts of E[r] − β KL."""
    return -exact_gradient(WORLD, TABLE, beta)


@pytest.mark.parametrize("name", UNBIASED)
def test_an_unbiased_gradient_agrees_with_the_exact_one(name: str) -> None:
    found = gradients_of(UNBIASED[name])
    expected = exact()
    worst, square = found.chance(expected)
    assert worst < 4.2
    assert square < 2.0
    assert found.chance(torch.zeros_like(expected))[1] > 5, "the test can tell the gradient from nothing"


def test_dr_grpo_is_the_exact_gradient_a_little_smaller() -> None:
    # A group's mean holds the sample itself, so (G − 1)/G of the gradient is left (Liu et al. 2025, App. A).
    found = gradients_of(FREE | {"advantage_estimator": "dr_grpo", "policy_loss": "ppo"})
    worst, square = found.chance(exact() * (GROUP - 1) / GROUP)
    assert worst < 4.2
    assert square < 2.0


def test_a_penalty_in_the_loss_pays_for_its_own_token_only() -> None:
    # k2 and k3+ have the gradient of Σ_t KL_t with the states held fixed; the exact KL moves the states too. Without the reward's
    # part the sum over the first token's logits alone agrees, for what comes later does not depend on the last token.
    found = gradients_of(FREE | {"advantage_estimator": "rloo", "kl_in": "loss", "kl_estimator": "k3+"})
    last = torch.arange(1, WORLD.n_prefixes)  # the prefixes before the last token
    worst, _ = Found(found.mean[:, last], found.error[:, last]).chance(exact()[:, last])
    assert worst < 4.2


def test_the_bias_of_grpo_is_the_one_of_dividing_by_the_standard_deviation() -> None:
    plain = gradients_of(FREE | {"advantage_estimator": "dr_grpo", "policy_loss": "ppo", "kl_coef": 0.0})
    divided = gradients_of(FREE | {"advantage_estimator": "grpo", "policy_loss": "ppo", "kl_coef": 0.0})
    cosine = torch.nn.functional.cosine_similarity(plain.mean.flatten(), divided.mean.flatten(), dim=0).item()
    assert 0.8 < cosine < 0.9999, "another direction, though not an opposite one"
    assert divided.chance(exact(0.0) * (GROUP - 1) / GROUP)[1] > 2


def test_a_discount_below_one_is_biased_for_rewards_at_the_end() -> None:
    # What is left of the score at the first token is γ^T of it, so early tokens learn less (C25: the reason for γ = 1).
    found = gradients_of(FREE | {"advantage_estimator": "return", "gamma": 0.5, "num_generations": 1}, batches=200)
    assert found.chance(exact())[1] > 2
