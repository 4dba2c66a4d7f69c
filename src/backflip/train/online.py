"""PPO from a reward: prompt → rollout → reward → advantage → loss → update.

Keeps of Ziegler et al. 2019 and "The N Implementation Details of RLHF with PPO": the KL penalty inside the reward, token by
token; the score on the last token; whitening, GAE and the clipped losses within each minibatch; a fresh order each epoch;
the adaptive KL controller in nats per sequence. Of the textbook's PPO it drops the entropy bonus and early stopping.

Legend: B rows, T response columns.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from backflip.errors import ConfigError, NumericsError
from backflip.maths.kl import adaptive_kl_coef, kl_penalty
from backflip.maths.policy_losses import ppo_clip, value_loss
from backflip.maths.returns import gae, place_scores
from backflip.maths.tensors import denominator, keep, masked_mean, whiten
from backflip.policies.language import LanguagePolicy, Scores, training_mode
from backflip.policies.tokens import TokenBatch
from backflip.records import Prompt, content_id
from backflip.rewards.learned import RewardModel
from backflip.rewards.protocol import RewardFunction, score
from backflip.rollout.local import Rollout, cut, generate
from backflip.rollout.sampling import check_drawn, is_whole
from backflip.runs import Run
from backflip.seeds import Seeds, cyclic_batch
from backflip.settings import PPO
from backflip.train.critic import Critic, RewardCritic, SharedCritic
from backflip.train.episodes import Episodes, ReadyPrompt, find_ends, loss_mask, prepare_prompts, stop_tokens, texts
from backflip.train.learner import Learner
from backflip.train.state import Inputs, fingerprint, frozen_weights, resume, save


class Judged(NamedTuple):
    """What the completions of a step were worth: their text, the score that is optimised, the raw one, and those
    that are only watched,     the gold one and the sentinel's."""

    texts: list[str]
    scores_B: Tensor
    proxy: list[float]
    gold: list[float] | None
    sentinel: list[float] | None
    found_B: Tensor
    kept_B: Tensor


@dataclass
class Trainer:
    """Everything one PPO run works with; `improve` builds it and calls `step`."""

    policy: LanguagePolicy
    reference: LanguagePolicy
    critic: Critic
    reward: RewardFunction
    gold: RewardFunction | None
    prompts: list[ReadyPrompt]
    settings: PPO
    seeds: Seeds
    learner: Learner
    stops: Tensor
    kl_coef: float
    sentinel: RewardFunction | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    shown: list[dict[str, Any]] = field(default_factory=list)

    def step(self, step: int) -> dict[str, float]:
        """One rollout and its updates; returns the step's metrics."""
        with self._timed("rollout"):
            prompts, rollout = self.sample(step)
        with self._timed("reward"):
            judged = self.judge(prompts, rollout)
        with self._timed("score"):
            episodes, metrics = self.penalize(rollout, judged)
        with self._timed("update"):
            metrics |= self.update(step, episodes)
        self.control(metrics)
        self.shown = [
            {"prompt": p.plain, "completion": t, "proxy": r, "finished": bool(f)}
            | ({"gold": judged.gold[i]} if judged.gold else {})
            for i, (p, t, r, f) in enumerate(zip(prompts[:4], judged.texts, judged.proxy, judged.found_B, strict=False))
        ]
        return metrics

    def sample(self, step: int) -> tuple[list[Prompt], Rollout]:
        """This step's prompts, each `num_generations` times, and a completion for every row."""
        s = self.settings
        chosen = cyclic_batch(self.seeds, len(self.prompts), s.batch_size // s.num_generations, step)
        rows = [self.prompts[i] for i in chosen for _ in range(s.num_generations)]
        rollout = generate(self.policy, [row.ids for row in rows], s.sampling, seeds=self.seeds.child("rollout", step))
        return [row.prompt for row in rows], rollout

    def judge(self, prompts: list[Prompt], rollout: Rollout) -> Judged:
        """Cut each completion where it ends and score the text; one that never ends gets the penalty instead."""
        ends = find_ends(rollout.tokens, self.stops, after=self.settings.truncate_after)
        stop = self.settings.sampling.stop
        completions = [cut(text, stop) for text in texts(self.policy, rollout.tokens, ends.kept_B)]
        if stop:
            ends = ends._replace(found_B=ends.found_B | rollout.finished_B)
        proxy = score(self.reward, prompts, completions)
        scores_B = torch.tensor(proxy, device=self.policy.device)
        if self.settings.missing_penalty is not None:
            scores_B = scores_B.where(ends.found_B, torch.full_like(scores_B, self.settings.missing_penalty))
        gold = score(self.gold, prompts, completions) if self.gold is not None else None
        sentinel = score(self.sentinel, prompts, completions) if self.sentinel is not None else None
        return Judged(completions, scores_B, proxy, gold, sentinel, ends.found_B, ends.kept_B)

    @torch.no_grad()
    def penalize(self, rollout: Rollout, judged: Judged) -> tuple[Episodes, dict[str, float]]:
        """Old log-probabilities and values, the reference's opinion, and the rewards −β·KL_t with the score on the last token."""
        s, tokens = self.settings, rollout.tokens
        mask_BT = loss_mask(tokens, judged.kept_B, past_the_end="mask" if s.mask_after_truncation else "train")
        parts = [
            self._look(tokens.rows(slice(i, i + s.optim.micro_batch_size)))
            for i in range(0, len(tokens), s.optim.micro_batch_size)
        ]
        old_BT, ref_BT, values_BT, entropy_BT = (torch.cat(column) for column in zip(*parts, strict=True))
        self._check_sampler(rollout.logps_BT, old_BT, tokens.mask_BT)
        kl_BT = keep(kl_penalty(old_BT, ref_BT, s.kl_estimator), mask_BT)
        log_ratio_BT = keep(old_BT - ref_BT, mask_BT)
        rewards_BT = -self.kl_coef * kl_BT + place_scores(judged.scores_B, mask_BT)
        weights_BT = torch.ones_like(old_BT)
        if s.sampling.precision != "model":
            weights_BT = (old_BT - rollout.logps_BT).exp().clamp(max=s.importance_cap)
        episodes = Episodes(tokens, mask_BT, old_BT, values_BT, rewards_BT, weights_BT)
        n_tokens = mask_BT.sum()
        metrics = {
            "objective/kl": log_ratio_BT.sum(1).mean(),
            "kl/seq_nats": log_ratio_BT.sum(1).mean(),
            "kl/tok_nats": log_ratio_BT.sum() / n_tokens,
            "objective/entropy": masked_mean(entropy_BT, mask_BT),
            "objective/scores": torch.tensor(judged.proxy).mean(),
            "objective/optimized_scores": judged.scores_B.mean(),
            "objective/non_score_reward": -self.kl_coef * kl_BT.sum(1).mean(),
            "objective/rlhf_reward": rewards_BT.sum(1).mean(),
            "objective/kl_coef": torch.tensor(self.kl_coef, dtype=torch.float64),
            "rollout/length": judged.kept_B.float().mean(),
            "rollout/unfinished_share": 1 - judged.found_B.float().mean(),
            "rollout/logp_max_diff": keep((rollout.logps_BT - old_BT).abs(), tokens.mask_BT).max(),
        }
        if judged.gold is not None:
            metrics["objective/gold"] = torch.tensor(judged.gold).mean()
        if judged.sentinel is not None:
            metrics["objective/sentinel"] = torch.tensor(judged.sentinel).mean()
        return episodes, {name: float(value) for name, value in metrics.items()}

    def update(self, step: int, episodes: Episodes) -> dict[str, float]:
        """`ppo_epochs` passes of `num_minibatches` updates each."""
        s, n = self.settings, len(episodes.tokens)
        history: list[dict[str, float]] = []
        for epoch in range(s.ppo_epochs):
            order = torch.tensor(self.seeds.permutation(n, "minibatch", step, epoch))
            for part in order.tensor_split(s.num_minibatches):
                minibatch = episodes.rows(part.to(self.policy.device))
                history.append(self._update_minibatch(minibatch, first=not history))
        return {name: sum(h[name] for h in history) / len(history) for name in history[0]}

    def control(self, metrics: dict[str, float]) -> None:
        """Move β towards the KL target (Ziegler et al. 2019, section 2.2)."""
        s = self.settings
        if s.kl_controller == "adaptive":
            self.kl_coef = adaptive_kl_coef(
                self.kl_coef, metrics["kl/seq_nats"], target=s.kl_target, horizon=s.kl_horizon, n=s.batch_size
            )

    def advantages(self, minibatch: Episodes) -> tuple[Tensor, Tensor]:
        """Advantages and returns of a minibatch, (B, T) each, whitened as the settings say."""
        s, mask_BT = self.settings, minibatch.loss_mask_BT
        rewards_BT = minibatch.rewards_BT
        if s.whiten_rewards:
            rewards_BT = whiten(rewards_BT, mask_BT, shift_mean=False, unbiased=s.unbiased_variance)
        estimate = gae(rewards_BT, minibatch.old_values_BT, mask_BT, gamma=s.gamma, lam=s.lam)
        advantages_BT = estimate.advantages_BT
        if s.whiten_advantages:
            advantages_BT = whiten(advantages_BT, mask_BT, unbiased=s.unbiased_variance)
        # A sampler of other precision is another policy: its tokens are reweighted to π_old (truncated importance sampling,
        # Espeholt et al. 2018, section 4.1). A positive weight passes through the clipped loss unchanged.
        return advantages_BT * minibatch.weights_BT, estimate.returns_BT

    def _update_minibatch(self, minibatch: Episodes, *, first: bool) -> dict[str, float]:
        s = self.settings
        advantages_BT, returns_BT = self.advantages(minibatch)
        count = denominator(minibatch.loss_mask_BT, s.averaging)
        n_tokens = int(minibatch.loss_mask_BT.sum())
        sums: dict[str, float] = {}

        def loss_of(rows: Sequence[int]) -> Tensor:
            index = torch.tensor(rows, device=self.policy.device)
            part = minibatch.rows(index)
            mask_BT = part.loss_mask_BT
            scores = self._scores(part.tokens)
            values_BT = self.critic.values(part.tokens, scores)
            policy = ppo_clip(
                scores.logps_BT, part.old_logps_BT, advantages_BT[index], mask_BT,
                clip_low=s.cliprange, clip_high=s.cliprange, averaging=s.averaging, denominator=count,
            )  # fmt: skip
            value = value_loss(
                values_BT, part.old_values_BT, returns_BT[index], mask_BT,
                clip=s.cliprange_value, averaging=s.averaging, denominator=count,
            )  # fmt: skip
            share = float(policy.tokens) / n_tokens
            log_ratio_BT = keep(scores.logps_BT.detach() - part.old_logps_BT, mask_BT)
            for name, amount in {
                "loss/policy_avg": policy.loss.item(),
                "loss/value_avg": value.loss.item(),
                "policy/approxkl_avg": share * 0.5 * masked_mean(log_ratio_BT.square(), mask_BT).item(),
                "policy/clipfrac_avg": share * policy.clip_fraction.item(),
                "val/clipfrac_avg": share * value.clip_fraction.item(),
                "val/ratio": share * policy.ratio_mean.item(),
            }.items():
                sums[name] = sums.get(name, 0.0) + amount
            error = keep(log_ratio_BT.exp() - 1, mask_BT).abs().max().item()
            if first:
                self._check_first_ratio(error)
            sums["val/ratio_max_error"] = max(sums.get("val/ratio_max_error", 0.0), error)
            return policy.loss + s.vf_coef * value.loss

        with training_mode(self.policy.model, s.dropout, seed=self.seeds.integer("dropout", self.learner.optimizer.t)):
            update = self.learner.update(range(len(minibatch.tokens)), loss_of)
        return sums | {"grad_norm": update.grad_norm, "lr": update.learning_rate}

    def _scores(self, tokens: TokenBatch, policy: LanguagePolicy | None = None, *, entropy: bool = False) -> Scores:
        s = self.settings
        return (policy or self.policy).score(
            tokens,
            temperature=s.sampling.temperature if s.scale_logits else 1.0,
            position_ids=s.position_ids,
            entropy=entropy,
            hidden=policy is None and self.critic.needs_hidden,
        )

    def _look(self, tokens: TokenBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        scores = self._scores(tokens, entropy=True)
        assert scores.entropy_BT is not None
        values_BT = keep(self.critic.values(tokens, scores), tokens.mask_BT)
        return scores.logps_BT, self._scores(tokens, self.reference).logps_BT, values_BT, scores.entropy_BT

    @property
    def _exact(self) -> bool:
        """Whether sampler and scorer are meant to give the same probabilities (some ablations break that on purpose)."""
        return self.settings.scale_logits and self.settings.position_ids == "mask"

    @property
    def _tolerance(self) -> float:
        return 1e-4 if self.policy.device.type == "cpu" else 5e-2

    def _check_sampler(self, sampled_BT: Tensor, scored_BT: Tensor, mask_BT: Tensor) -> None:
        error = masked_mean((sampled_BT - scored_BT).abs().exp(), mask_BT).item()
        close = self.policy.device.type == "cpu" and self.settings.sampling.precision == "model"
        limit = 1.001 if close else 1.1
        if self._exact and not error < limit:
            raise NumericsError(
                f"the sampler and the scorer disagree: mean exp|Δ log p| is {error:.4f} where 1 is right; the usual cause is a "
                "difference in temperature, in position ids or in padding between generation and scoring"
            )

    def _check_first_ratio(self, error: float) -> None:
        if not self.settings.dropout and not error < self._tolerance:
            raise NumericsError(
                f"before any update π/π_old is off 1 by {error:.2g}; the usual cause is dropout left on, or old "
                "log-probabilities computed at another temperature or padding"
            )

    @contextlib.contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[part] = time.perf_counter() - start


def improve(
    policy: LanguagePolicy,
    prompts: Sequence[Prompt],
    reward: RewardFunction,
    settings: PPO,
    run: Run,
    *,
    seeds: Seeds,
    gold: RewardFunction | None = None,
    sentinel: RewardFunction | None = None,
    reference: LanguagePolicy | None = None,
    kl_coef: float | None = None,
) -> dict[str, float]:
    """Improve `policy` in place against `reward` and return the last step's metrics.

    `reference` (default: a copy of the policy as it comes) is what the KL penalty pulls towards; `kl_coef` overrides the
    initial β; `gold`, where the truth is known, and `sentinel`, a second reward model, are only measured. Raises ConfigError,
    also when a run is resumed with another reference, reward model, seed or other prompts than it was begun with, DataError
    and NumericsError.
    """
    _check(settings, reward)
    ready = prepare_prompts(policy, prompts, settings)
    critic: Critic = (
        RewardCritic(reward, policy) if settings.critic == "reward" and isinstance(reward, RewardModel) else SharedCritic(policy)
    )
    reference = reference or policy.frozen_copy()
    parameters = [*policy.parameters(), *critic.parameters()]
    total = settings.steps * settings.ppo_epochs * settings.num_minibatches
    learner = Learner(parameters, settings.optim, total=total)
    trainer = Trainer(
        policy=policy, reference=reference, critic=critic, reward=reward, gold=gold, prompts=ready, settings=settings,
        seeds=seeds, sentinel=sentinel, learner=learner, stops=stop_tokens(policy, settings.truncate_at).to(policy.device),
        kl_coef=settings.kl_coef if kl_coef is None else kl_coef,
    )  # fmt: skip
    models = {"policy": policy, "critic": critic}
    inputs = _inputs(policy, reference, reward, prompts, seeds)
    state = resume(run, models, learner, inputs=inputs)
    trainer.kl_coef = state.get("kl_coef", trainer.kl_coef)
    metrics: dict[str, float] = state.get("metrics", {})
    with run.progress(settings.steps, "PPO", done=state["step"]) as bar:
        for step in range(state["step"], settings.steps):
            metrics = trainer.step(step)
            run.log(step + 1, {"episode": (step + 1) * settings.batch_size} | metrics)
            run.time(step + 1, trainer.seconds)
            if step == 0 or (step + 1) % settings.sample_every == 0 or step + 1 == settings.steps:
                run.samples(step + 1, trainer.shown)
            if (step + 1) % settings.save_every == 0 or step + 1 == settings.steps or run.stopping:
                save(run, step + 1, models, learner, {"kl_coef": trainer.kl_coef, "metrics": metrics}, inputs=inputs)
            bar.advance(reward=metrics["objective/scores"], kl=metrics["kl/seq_nats"])
            if run.stopping and step + 1 < settings.steps:
                run.interrupted("run the same command again to go on")
    return metrics | {"kl_coef": trainer.kl_coef}


def _inputs(
    policy: LanguagePolicy, reference: LanguagePolicy, reward: RewardFunction, prompts: Sequence[Prompt], seeds: Seeds
) -> Inputs:
    """What no checkpoint holds and the run depends on. A reward function that is not a model cannot be recognised."""
    inputs: dict[str, str | int] = {
        "seed": seeds.root,
        "prompts": content_id([prompt.id for prompt in prompts]),
        "initial policy (the reference)": fingerprint(reference.model.named_parameters()),
        "frozen weights": frozen_weights(policy),
    }
    if isinstance(reward, RewardModel):
        inputs["reward model"] = content_id(fingerprint(reward.parameters()), reward.bias)
    return inputs


def _check(settings: PPO, reward: RewardFunction) -> None:
    check_drawn(settings.sampling, "PPO")
    if not is_whole(settings.sampling):
        raise ConfigError(
            "PPO samples from the whole distribution: with top_k, top_p, min_p or a repetition_penalty the ratio π/π_old would "
            "be that of another one; set top_k to 0, top_p to 1, min_p to 0 and repetition_penalty to 1"
        )
    if settings.batch_size % settings.num_generations:
        raise ConfigError(f"num_generations {settings.num_generations} must divide batch_size {settings.batch_size}")
    least = 2 if settings.whiten_rewards or settings.whiten_advantages else 1
    if settings.batch_size < least * settings.num_minibatches:
        raise ConfigError(
            f"num_minibatches {settings.num_minibatches} splits a batch_size of {settings.batch_size} into minibatches of fewer "
            f"than {least} episodes{' and one alone cannot be whitened' if least == 2 else ''}; lower it or raise batch_size"
        )
    if settings.critic == "reward" and not isinstance(reward, RewardModel):
        raise ConfigError("critic 'reward' needs a learned reward model to start from; use critic 'shared'")
