"""Every policy-gradient algorithm by name: a choice of parts of one loop, with the numbers of its paper."""

from __future__ import annotations

import dataclasses

from backflip.config import unknown
from backflip.settings import Online, Optim, Sampling

_ADAM = Optim(learning_rate=1e-6, lr_schedule="constant", adam_eps=1e-8, adam_eps_convention="torch")
_CRITIC_FREE = Online(
    ppo_epochs=1, critic="none", whiten_rewards=False, whiten_advantages=False, kl_controller="fixed", missing_penalty=None,
    sampling=Sampling(temperature=1.0, max_new_tokens=1024), optim=_ADAM,
)  # fmt: skip
_WHOLE_COMPLETIONS = dataclasses.replace(
    _CRITIC_FREE, policy_loss="reinforce", averaging="seq-mean-token-sum", kl_coef=0.03,
    sampling=Sampling(temperature=1.0, max_new_tokens=64),
)  # fmt: skip

GRPO = dataclasses.replace(
    _CRITIC_FREE, batch_size=1024, num_generations=64, advantage_estimator="grpo", averaging="seq-mean-token-mean",
    kl_in="loss", kl_estimator="k3", kl_coef=0.04,
)  # fmt: skip
"""Group relative policy optimisation with the numbers of DeepSeekMath (Shao et al. 2024, section 4.2)."""

RLOO = dataclasses.replace(_WHOLE_COMPLETIONS, num_generations=4, advantage_estimator="rloo")
"""REINFORCE, leave one out (Ahmadian et al. 2024): whole completions as single actions, the KL inside the reward."""

_DAPO = dataclasses.replace(
    _CRITIC_FREE, batch_size=8192, num_generations=16, num_minibatches=16, advantage_estimator="grpo", cliprange_high=0.28,
    kl_coef=0.0, overlong_buffer=4096, mask_unfinished=True, max_draws=10,
    sampling=Sampling(temperature=1.0, max_new_tokens=20480), optim=dataclasses.replace(_ADAM, warmup_steps=320),
)  # fmt: skip

PPO_DETAILS = Online()
_INSTRUCT = Online(
    steps=500, ppo_epochs=1, num_minibatches=8, critic="reward", cliprange_value=0.2, kl_coef=0.02, kl_controller="fixed",
    whiten_rewards=False, missing_penalty=None, sampling=Sampling(temperature=1.0, max_new_tokens=1024),
    optim=Optim(
        learning_rate=8.05e-6, lr_schedule="constant", warmup_steps=80, adam_betas=(0.9, 0.95), adam_eps=1e-8,
        adam_eps_convention="torch",
    ),
)  # fmt: skip

ALGORITHMS: dict[str, tuple[Online, str]] = {
    "ppo": (PPO_DETAILS, "Proximal policy optimisation with the details and numbers of Ziegler et al. 2019 (style tasks)."),
    "ppo-ptx": (
        dataclasses.replace(_INSTRUCT, ptx_coef=27.8),
        "PPO with pretraining gradients mixed in, the numbers of InstructGPT (Ouyang et al. 2022, App. C.4).",
    ),
    "instructgpt": (_INSTRUCT, "The same without pretraining gradients."),
    "a2c": (
        dataclasses.replace(
            PPO_DETAILS, ppo_epochs=1, policy_loss="reinforce", whiten_rewards=False, whiten_advantages=False, lam=1.0,
            cliprange_value=None, vf_coef=0.5, kl_controller="fixed", kl_coef=0.05,
        ),
        "Synchronous advantage actor–critic (Mnih et al. 2016): one update a step, nothing clipped.",
    ),
    "gopher": (
        dataclasses.replace(
            PPO_DETAILS, ppo_epochs=1, policy_loss="reinforce", whiten_rewards=False, whiten_advantages=False, lam=1.0,
            cliprange_value=None, vf_coef=0.5, kl_controller="fixed", kl_in="loss", kl_estimator="k3+", kl_coef=0.25,
        ),
        "A2C as GopherCite mixes it (Menick et al. 2022, section 2.4): (1−α)·A2C + α·KL per token, here at α = 0.2, divided by "
        "1−α.",
    ),
    "trpo": (
        dataclasses.replace(
            PPO_DETAILS, policy_loss="trpo", whiten_rewards=False, kl_controller="fixed", kl_coef=0.05, cliprange_value=None,
        ),
        "Trust-region policy optimisation (Schulman et al. 2015): the natural gradient, as far as the trust region goes.",
    ),
    "nlpo": (
        dataclasses.replace(
            PPO_DETAILS, batch_size=64, ppo_epochs=5, mask_top_p=0.9, mask_keep=100, mask_every=5, kl_coef=0.1,
            kl_target=4.8, sampling=Sampling(temperature=1.0, max_new_tokens=48, ignore_eos=True),
            optim=dataclasses.replace(_ADAM, learning_rate=1e-6),
        ),
        "PPO that draws from the nucleus of a mask policy, with the numbers of RL4LMs' IMDB task (Ramamurthy et al. 2022).",
    ),
    "reinforce": (
        dataclasses.replace(_WHOLE_COMPLETIONS, advantage_estimator="return"),
        "The policy gradient as it is (Williams 1992).",
    ),
    "reinforce-baseline": (
        dataclasses.replace(_WHOLE_COMPLETIONS, advantage_estimator="return-baseline"),
        "REINFORCE less the mean return of earlier steps (Ahmadian et al. 2024, section 2.2).",
    ),
    "rloo": (RLOO, "REINFORCE, leave one out (Ahmadian et al. 2024)."),
    "remax": (
        dataclasses.replace(_WHOLE_COMPLETIONS, advantage_estimator="remax"),
        "REINFORCE less the reward of the greedy completion (Li et al. 2023).",
    ),
    "reinforce++": (
        dataclasses.replace(_CRITIC_FREE, advantage_estimator="reinforce++", batch_size=1024, num_minibatches=8, kl_coef=0.01),
        "Returns whitened over the batch, PPO's clip (Hu 2025).",
    ),
    "reinforce++-baseline": (
        dataclasses.replace(
            _CRITIC_FREE, advantage_estimator="reinforce++-baseline", batch_size=1024, num_generations=8, num_minibatches=8,
            kl_in="loss", kl_estimator="k2", kl_coef=0.01,
        ),
        "The same on scores less their prompt's mean (Hu 2025).",
    ),
    "grpo": (GRPO, "Group relative policy optimisation with the numbers of DeepSeekMath (Shao et al. 2024)."),
    "grpo-process": (
        dataclasses.replace(GRPO, advantage_estimator="grpo-process"),
        "GRPO with process supervision: every step has a reward, compared with all steps of its prompt (same paper, 4.1.3).",
    ),
    "r1-zero": (
        dataclasses.replace(
            GRPO, batch_size=512, num_generations=16, kl_coef=0.001, reference_every=400,
            sampling=Sampling(temperature=1.0, max_new_tokens=32768), optim=dataclasses.replace(_ADAM, learning_rate=3e-6),
        ),
        "GRPO with the numbers of DeepSeek-R1-Zero (2025, section 2.2).",
    ),
    "dr-grpo": (
        dataclasses.replace(
            GRPO, batch_size=1024, num_generations=8, num_minibatches=8, advantage_estimator="dr_grpo",
            averaging="seq-mean-token-sum-norm", kl_coef=0.0, sampling=Sampling(temperature=1.0, max_new_tokens=3000),
        ),
        "GRPO done right (Liu et al. 2025): no division by the standard deviation nor by a completion's own length.",
    ),
    "dapo": (_DAPO, "Decoupled clip, dynamic sampling, token-mean loss, soft overlong punishment (Yu et al. 2025)."),
    "gspo": (
        dataclasses.replace(
            GRPO, num_generations=16, num_minibatches=4, policy_loss="gspo", cliprange=3e-4, cliprange_high=4e-4, kl_coef=0.0,
        ),
        "One clipped ratio per completion (Zheng et al. 2025).",
    ),
    "cispo": (
        dataclasses.replace(
            GRPO, num_generations=16, num_minibatches=16, policy_loss="cispo", averaging="token-mean", cliprange=1.0,
            cliprange_high=4.0, kl_coef=0.0,
        ),
        "The importance weight is clipped, no token is dropped (MiniMax-M1, 2025); no lower bound, as published.",
    ),
    "sapo": (
        dataclasses.replace(GRPO, num_generations=16, num_minibatches=4, policy_loss="sapo", kl_coef=0.0),
        "A soft gate in place of the clip (Gao et al. 2025).",
    ),
}  # fmt: skip
"""Every algorithm by name: a choice of parts with the numbers of its paper, and a sentence."""


def algorithm_settings(name: str) -> Online:
    """The numbers of an algorithm. Raises ConfigError, with the nearest name, when there is none of that name."""
    if name not in ALGORITHMS:
        raise unknown(name, list(ALGORITHMS), "algorithm")
    return ALGORITHMS[name][0]
