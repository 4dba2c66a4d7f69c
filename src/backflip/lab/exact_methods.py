"""Every algorithm as it is run in an exact world, what it then optimises, and what its gradient should be.

What makes an algorithm is kept: the advantage estimator, the loss, where the KL goes, whitening, clipping and averaging. What
belongs to language models of billions of weights (sizes, step sizes, β, temperatures other than 1, cut-off completions) is
replaced by numbers for 27 completions.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from backflip.algorithms import ALGORITHMS
from backflip.lab.exact_settings import Settings
from backflip.settings import Online, Optim, Sampling

Goal = Literal["π*", "penalty in the loss", "no penalty", "pretraining text", "a nucleus"]

GOALS: dict[str, Goal] = {
    "ppo": "π*", "ppo-ptx": "pretraining text", "instructgpt": "π*", "a2c": "π*", "gopher": "penalty in the loss", "trpo": "π*",
    "nlpo": "a nucleus", "reinforce": "π*", "reinforce-baseline": "π*", "rloo": "π*", "remax": "π*", "reinforce++": "π*",
    "reinforce++-baseline": "penalty in the loss", "grpo": "penalty in the loss",
    "grpo-process": "penalty in the loss", "r1-zero": "penalty in the loss",
    "dr-grpo": "no penalty", "dapo": "no penalty", "gspo": "no penalty", "cispo": "no penalty", "sapo": "no penalty",
}  # fmt: skip
"""What each algorithm converges to. π*: the KL stands in the reward, and whitening multiplies reward and penalty by the same
positive number, which moves no optimum. With the penalty in the loss a token pays for its own divergence only, and advantages
that are scaled while the penalty is not change β. Without a penalty the optimum is the best completion. Drawing from a nucleus
leaves the rest of the policy as it was."""

BIASES: dict[str, str] = {
    "ppo": "λ = 0.95 and a critic that knows nothing yet; rewards and advantages whitened",
    "ppo-ptx": "as instructgpt, and pretraining text",
    "instructgpt": "λ = 0.95 and a critic that knows nothing yet; advantages whitened",
    "trpo": "as instructgpt; the gradient that the natural step is made of",
    "nlpo": "as ppo; tokens outside the nucleus are never drawn",
    "gopher": "the KL of later tokens left out",
    "reinforce++": "returns whitened over the batch",
    "reinforce++-baseline": "scores whitened and the KL not; the KL of later tokens left out",
    "grpo": "divided by each group's deviation; the forward KL of each token alone",
    "grpo-process": "as grpo: a completion here is a single step",
    "r1-zero": "as grpo",
    "dapo": "divided by each group's deviation",
    "gspo": "divided by each group's deviation",
    "cispo": "divided by each group's deviation",
    "sapo": "divided by each group's deviation",
}
"""Why the expected gradient of these is not that of what they optimise; the others are unbiased."""

UNBIASED = tuple(name for name in ALGORITHMS if name not in BIASES)


def in_the_world(name: str, settings: Settings) -> Online:
    """An algorithm by name, as it is trained here."""
    published = ALGORITHMS[name][0]
    return dataclasses.replace(
        published,
        steps=settings.steps, batch_size=settings.batch_size, save_every=settings.steps,
        num_generations=settings.num_generations if published.num_generations > 1 else 1,
        num_minibatches=min(published.num_minibatches, settings.num_minibatches),
        ppo_epochs=min(published.ppo_epochs, settings.ppo_epochs),
        critic="none" if published.critic == "none" else "shared",
        kl_coef=settings.beta if published.kl_coef else 0.0, kl_controller="fixed",
        reference_every=max(1, settings.steps // 2) if published.reference_every else None,
        ptx_coef=settings.ptx_coef if published.ptx_coef else 0.0, ptx_ratio=1.0,
        trust_kl=settings.trust_kl, trust_damping=1e-3, mask_keep=1,
        missing_penalty=None, overlong_buffer=0, max_draws=min(published.max_draws, 2),
        sampling=Sampling(max_new_tokens=settings.length + 1, temperature=1.0),
        optim=Optim(
            learning_rate=settings.learning_rate, micro_batch_size=settings.batch_size, max_grad_norm=None, adam_eps=1e-8,
            adam_eps_convention="torch",
        ),
    )  # fmt: skip


def for_gradients(name: str, settings: Settings) -> Online:
    """The same with one update a step and a step size of 0: each step leaves the gradient that an update begins with."""
    trained = in_the_world(name, settings)
    return dataclasses.replace(
        trained, steps=settings.batches, save_every=settings.batches, batch_size=settings.gradient_batch,
        ppo_epochs=1, num_minibatches=1, max_draws=1, reference_every=None,
        policy_loss="ppo" if trained.policy_loss == "trpo" else trained.policy_loss,
        optim=dataclasses.replace(trained.optim, learning_rate=0.0),
    )  # fmt: skip


def share(online: Online) -> float:
    """What averaging makes of the gradient of a completion: losses that are averaged over tokens divide by its T + 1 tokens, its
    end included."""
    return 1.0 if online.averaging == "seq-mean-token-sum" else 1 / online.sampling.max_new_tokens


def left(online: Online) -> float:
    """What comparing leaves of it: a mean with the sample itself in it keeps (G − 1)/G (Liu et al. 2025, App. A)."""
    return (online.num_generations - 1) / online.num_generations if online.advantage_estimator == "dr_grpo" else 1.0
