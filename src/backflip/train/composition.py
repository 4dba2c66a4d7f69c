"""The parts a policy-gradient method is made of: what an action is measured against, and how the policy follows.

    method                 advantage_estimator    policy_loss   averaging                 KL
    PPO, PPO-ptx           gae                    ppo           token-mean                in the reward, k1
    A2C                    gae                    reinforce     token-mean                in the reward, k1
    TRPO                   gae                    trpo          token-mean                in the reward, k1
    NLPO                   gae                    ppo           token-mean                in the reward, k1
    REINFORCE              return                 reinforce     seq-mean-token-sum        in the reward, k1
      with a baseline      return-baseline        reinforce     seq-mean-token-sum        in the reward, k1
    ReMax                  remax                  reinforce     seq-mean-token-sum        in the reward, k1
    RLOO                   rloo                   reinforce     seq-mean-token-sum        in the reward, k1
    REINFORCE++            reinforce++            ppo           token-mean                in the reward, k1
      its baseline form    reinforce++-baseline   ppo           token-mean                in the loss, k2
    GRPO                   grpo                   ppo           seq-mean-token-mean       in the loss, k3
      step by step         grpo-process           ppo           seq-mean-token-mean       in the loss, k3
    Dr. GRPO               dr_grpo                ppo           seq-mean-token-sum-norm   none
    DAPO                   grpo                   ppo           token-mean                none
    GSPO, CISPO, SAPO      grpo                   of that name  see `settings`            none

NLPO is PPO that draws from a mask policy's nucleus. `algorithms.ALGORITHMS` holds each with the numbers of its paper.

Legend: B rows, T response columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from backflip.envs.text import MakeEnvironment
from backflip.errors import ConfigError
from backflip.maths import advantages as against
from backflip.maths import policy_losses as losses
from backflip.maths.kl import kl_penalty
from backflip.maths.policy_losses import PolicyLoss
from backflip.maths.returns import discounted_returns
from backflip.maths.tensors import aggregate, denominator, keep
from backflip.rewards.learned import RewardModel
from backflip.rewards.protocol import RewardFunction
from backflip.rollout.sampling import check_drawn, is_whole
from backflip.settings import Online

GROUPED = ("grpo", "grpo-process", "dr_grpo", "rloo", "reinforce++-baseline")
"""Estimators that compare the completions of one prompt."""


def title(s: Online) -> str:
    """What people call this choice of parts."""
    names = {
        "return": "REINFORCE", "return-baseline": "REINFORCE", "remax": "ReMax", "gae": "PPO", "grpo": "GRPO",
        "grpo-process": "GRPO-process", "dr_grpo": "Dr. GRPO", "rloo": "RLOO",
    }  # fmt: skip
    if (s.advantage_estimator, s.policy_loss) == ("gae", "reinforce"):
        return "A2C"
    if s.policy_loss in ("cispo", "gspo", "sapo", "trpo"):
        return s.policy_loss.upper()
    if s.ptx_coef:
        return "PPO-ptx"
    if s.mask_top_p is not None:
        return "NLPO"
    if s.max_draws > 1:
        return "DAPO"
    return names.get(s.advantage_estimator, s.advantage_estimator.upper())


def critic_free_advantages(
    s: Online, rewards_BT: Tensor, group_B: Tensor, mask_BT: Tensor, baseline_B: Tensor | None = None,
    steps_BT: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Advantages of a whole step without a critic, (B, T): of tokens from their own return, or of completions, the sum of
    a row's rewards, from the others of their group.

    `baseline_B` is what the returns of a row are compared with by "return-baseline" and "remax", `steps_BT` marks the tokens
    that end a step for "grpo-process" (none: every completion is one).
    """
    if s.advantage_estimator == "return":
        return discounted_returns(rewards_BT, mask_BT, gamma=s.gamma)
    if s.advantage_estimator == "return-baseline":
        assert baseline_B is not None
        return keep(discounted_returns(rewards_BT, mask_BT, gamma=s.gamma) - baseline_B.unsqueeze(-1), mask_BT)
    if s.advantage_estimator == "remax":
        assert baseline_B is not None
        return against.remax(rewards_BT, baseline_B, mask_BT)
    if s.advantage_estimator == "reinforce++":
        return against.reinforce_plus_plus(rewards_BT, mask_BT, gamma=s.gamma)
    if s.advantage_estimator == "grpo-process":
        steps_BT = torch.zeros_like(mask_BT) if steps_BT is None else steps_BT
        return against.group_process(rewards_BT, steps_BT, group_B, mask_BT)
    scores_B = rewards_BT.sum(1)
    if s.advantage_estimator == "reinforce++-baseline":
        return against.reinforce_plus_plus_baseline(scores_B, group_B, mask_BT)
    estimate = {"grpo": against.group_normalized, "dr_grpo": against.group_centered, "rloo": against.rloo}
    return against.per_token(estimate[s.advantage_estimator](scores_B, group_B), mask_BT)


def count(s: Online, mask_BT: Tensor) -> Tensor:
    """What the losses of a minibatch are divided by."""
    return denominator(mask_BT, s.averaging, norm_length=s.sampling.max_new_tokens)


def policy_loss(
    s: Online, logps_BT: Tensor, old_logps_BT: Tensor, advantages_BT: Tensor, mask_BT: Tensor, denominator: Tensor
) -> PolicyLoss:
    """The loss these settings choose, of some rows of a minibatch."""
    if s.policy_loss == "reinforce":
        return losses.reinforce(logps_BT, advantages_BT, mask_BT, averaging=s.averaging, denominator=denominator)
    if s.policy_loss == "sapo":
        return losses.sapo(logps_BT, old_logps_BT, advantages_BT, mask_BT, averaging=s.averaging, denominator=denominator)
    if s.policy_loss == "trpo":
        return losses.surrogate(logps_BT, old_logps_BT, advantages_BT, mask_BT, averaging=s.averaging, denominator=denominator)
    high = s.cliprange if s.cliprange_high is None else s.cliprange_high
    if s.policy_loss == "ppo":
        return losses.ppo_clip(
            logps_BT, old_logps_BT, advantages_BT, mask_BT,
            clip_low=s.cliprange, clip_high=high, dual_clip=s.dual_clip, averaging=s.averaging, denominator=denominator,
        )  # fmt: skip
    clipped = {"cispo": losses.cispo, "gspo": losses.gspo}[s.policy_loss]
    return clipped(
        logps_BT, old_logps_BT, advantages_BT, mask_BT,
        clip_low=s.cliprange, clip_high=high, averaging=s.averaging, denominator=denominator,
    )  # fmt: skip


def kl_loss(s: Online, logps_BT: Tensor, ref_logps_BT: Tensor, mask_BT: Tensor, denominator: Tensor) -> Tensor:
    """The KL penalty as a loss, before its coefficient: a scalar."""
    penalty_BT = kl_penalty(logps_BT, ref_logps_BT, s.kl_estimator)
    return aggregate(penalty_BT, mask_BT, s.averaging, denominator=denominator)


def check(s: Online, reward: RewardFunction | None, environment: MakeEnvironment | None = None) -> None:
    """Refuse parts that do not go together. Raises ConfigError, saying which and what to do."""
    check_settings(s)
    if reward is None and environment is None:
        raise ConfigError("nothing says what a completion is worth; give a reward, or an environment that has one")
    if environment is not None and s.truncate_at != "eos":
        raise ConfigError(
            f"an episode in an environment ends where that says so, and truncate_at {s.truncate_at!r} would end it elsewhere; "
            "set it to eos"
        )
    if environment is not None and s.advantage_estimator == "remax":
        raise ConfigError(
            "advantage_estimator 'remax' compares with one greedy completion, which an environment of several turns does not "
            "have; use another, such as rloo"
        )
    if s.critic == "reward" and not isinstance(reward, RewardModel):
        raise ConfigError("critic 'reward' needs a learned reward model to start from; use critic 'shared'")


def check_settings(s: Online) -> None:
    """What of `check` needs no reward, so that it can be said long before there is one."""
    _check_sampling(s)
    _check_sizes(s)
    _check_parts(s)


def _check_sampling(s: Online) -> None:
    check_drawn(s.sampling, "reinforcement learning")
    if not is_whole(s.sampling):
        raise ConfigError(
            "the whole distribution must be sampled: with top_k, top_p, min_p or a repetition_penalty the ratio "
            "π/π_old would be that of another one; set top_k to 0, top_p to 1, min_p to 0 and repetition_penalty to 1"
        )


def _check_sizes(s: Online) -> None:
    if s.batch_size % s.num_generations:
        raise ConfigError(f"num_generations {s.num_generations} must divide batch_size {s.batch_size}")
    least = 2 if s.whiten_rewards or s.whiten_advantages else 1
    if s.batch_size < least * s.num_minibatches:
        raise ConfigError(
            f"num_minibatches {s.num_minibatches} splits a batch_size of {s.batch_size} into minibatches of fewer "
            f"than {least} episodes{' and one alone cannot be whitened' if least == 2 else ''}; lower it or raise batch_size"
        )
    if s.advantage_estimator in GROUPED and s.num_generations < 2:
        raise ConfigError(
            f"advantage_estimator {s.advantage_estimator!r} compares completions of one prompt; set num_generations to 2 or more"
        )


def _check_parts(s: Online) -> None:
    if (s.advantage_estimator == "gae") != (s.critic != "none"):
        raise ConfigError(
            "advantage_estimator 'gae' needs a critic; set critic to shared or reward"
            if s.critic == "none"
            else f"nothing reads the critic with advantage_estimator {s.advantage_estimator!r}; set critic to none"
        )
    if s.whiten_rewards and s.advantage_estimator != "gae":
        raise ConfigError("whiten_rewards belongs to advantage_estimator 'gae'; set it to false")
    if s.policy_loss == "reinforce" and s.ppo_epochs * s.num_minibatches > 1:
        raise ConfigError(
            "policy_loss 'reinforce' holds for tokens of the present policy only; set ppo_epochs and num_minibatches to 1"
        )
    if s.policy_loss == "trpo" and (s.kl_in == "loss" or s.entropy_coef or s.ptx_coef):
        raise ConfigError(
            "policy_loss 'trpo' makes its own step out of the reward alone; set kl_in to reward, and entropy_coef and ptx_coef "
            "to 0"
        )
    if s.dual_clip is not None and s.policy_loss != "ppo":
        raise ConfigError(f"nothing reads dual_clip with policy_loss {s.policy_loss!r}; set it to none")
    if s.max_draws > 1 and s.advantage_estimator not in GROUPED:
        raise ConfigError(
            f"max_draws replaces prompts whose completions all score the same, which advantage_estimator "
            f"{s.advantage_estimator!r} does not ask about; set it to 1"
        )
    if s.overlong_buffer >= s.sampling.max_new_tokens:
        raise ConfigError(
            f"overlong_buffer {s.overlong_buffer} must be below max_new_tokens {s.sampling.max_new_tokens}, where it ends"
        )
    if s.kl_in == "loss" and s.kl_estimator in ("k1", "abs"):
        raise ConfigError(
            f"as a loss, kl_estimator {s.kl_estimator!r} does not pull towards the reference (the expected gradient of k1 is 0); "
            "use k2, k3 or k3+"
        )
