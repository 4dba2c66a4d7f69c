"""Reinforcement learning from a reward: prompt → rollout → reward → advantage → loss → update.

One loop for every policy-gradient method; `composition` holds the parts that differ. As PPO it keeps of Ziegler et al. 2019
and "The N Implementation Details of RLHF with PPO": the KL penalty inside the reward, token by token; the score on the last
token; whitening, GAE and the clipped losses within each minibatch; a fresh order each epoch; the adaptive KL controller in
nats per sequence. Of the textbook's PPO it drops the entropy bonus and early stopping.

The policy reads its own samples once, in the update, wherever that is enough: a sampler of the same arithmetic has said what
they were worth when they were drawn, and with a single update a step the probabilities before it are those it starts from.

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

from backflip.errors import NumericsError
from backflip.maths.kl import adaptive_kl_coef, kl_penalty
from backflip.maths.policy_losses import value_loss
from backflip.maths.returns import gae, place_scores
from backflip.maths.tensors import keep, masked_mean, whiten
from backflip.policies.language import LanguagePolicy, Scores, training_mode
from backflip.policies.recompute import recompute
from backflip.policies.tokens import TokenBatch
from backflip.records import Prompt, content_id
from backflip.rewards.learned import RewardModel
from backflip.rewards.protocol import RewardFunction, score
from backflip.rollout.local import Rollout, cut, generate
from backflip.runs import Run
from backflip.seeds import Seeds, cyclic_batch
from backflip.settings import Online
from backflip.train.composition import GROUPED, check, count, critic_free_advantages, kl_loss, policy_loss, title
from backflip.train.critic import Critic, RewardCritic, SharedCritic
from backflip.train.episodes import Episodes, ReadyPrompt, find_ends, loss_mask, prepare_prompts, stop_tokens, texts
from backflip.train.learner import Learner, Share
from backflip.train.state import Inputs, Restorable, fingerprint, frozen_weights, resume, save


class Judged(NamedTuple):
    """What the completions of a step were worth: their text, the score that is optimised, the raw one, and those
    that are only watched, the gold one and the sentinel's."""

    texts: list[str]
    scores_B: Tensor
    proxy: list[float]
    gold: list[float] | None
    sentinel: list[float] | None
    found_B: Tensor
    kept_B: Tensor


@dataclass
class Trainer:
    """Everything one run works with; `improve` builds it and calls `step`."""

    policy: LanguagePolicy
    reference: LanguagePolicy
    critic: Critic | None
    reward: RewardFunction
    gold: RewardFunction | None
    prompts: list[ReadyPrompt]
    settings: Online
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
        """Old log-probabilities and values, the reference's opinion, and the rewards: the score on the last token and, where
        the settings put it there, −β·KL_t."""
        s, tokens = self.settings, rollout.tokens
        mask_BT = loss_mask(tokens, judged.kept_B, past_the_end="mask" if s.mask_after_truncation else "train")
        parts = [self._look(tokens.rows(part), rollout.logps_BT[part]) for part in self._slices(tokens)]
        old_BT, ref_BT, values_BT = (torch.cat(column) for column in zip(*parts, strict=True))
        log_ratio_BT = keep(old_BT - ref_BT, mask_BT)
        rewards_BT = place_scores(judged.scores_B, mask_BT)
        penalty_BT = torch.zeros_like(rewards_BT)
        if s.kl_in == "reward":
            penalty_BT = -self.kl_coef * keep(kl_penalty(old_BT, ref_BT, s.kl_estimator), mask_BT)
            rewards_BT = rewards_BT + penalty_BT
        advantages_BT, metrics = self._compare(rewards_BT, judged.scores_B, mask_BT)
        episodes = Episodes(
            tokens=tokens, loss_mask_BT=mask_BT, sampled_logps_BT=rollout.logps_BT, old_logps_BT=old_BT, ref_logps_BT=ref_BT,
            old_values_BT=values_BT, rewards_BT=rewards_BT, advantages_BT=advantages_BT,
        )  # fmt: skip
        metrics |= {
            "objective/kl": log_ratio_BT.sum(1).mean(),
            "kl/seq_nats": log_ratio_BT.sum(1).mean(),
            "kl/tok_nats": log_ratio_BT.sum() / mask_BT.sum(),
            "objective/scores": torch.tensor(judged.proxy).mean(),
            "objective/optimized_scores": judged.scores_B.mean(),
            "objective/non_score_reward": penalty_BT.sum(1).mean(),
            "objective/rlhf_reward": rewards_BT.sum(1).mean(),
            "objective/kl_coef": torch.tensor(self.kl_coef, dtype=torch.float64),
            "rollout/length": judged.kept_B.float().mean(),
            "rollout/unfinished_share": 1 - judged.found_B.float().mean(),
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
                # Completions of one prompt stand together, so that it is read once.
                rows = part.sort().values if s.num_generations > 1 else part
                history.append(self._update_minibatch(episodes.rows(rows.to(self.policy.device)), first=not history))
        # Entropy and the sampler's error are measured in the first minibatch alone, everything else in each.
        return history[0] | {name: sum(h[name] for h in history) / len(history) for name in history[-1]}

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
        advantages_BT, returns_BT = minibatch.advantages_BT, rewards_BT
        if s.advantage_estimator == "gae":
            advantages_BT, returns_BT = gae(rewards_BT, minibatch.old_values_BT, mask_BT, gamma=s.gamma, lam=s.lam)
        if s.whiten_advantages:
            advantages_BT = whiten(advantages_BT, mask_BT, unbiased=s.unbiased_variance)
        return advantages_BT, returns_BT

    def weights(self, old_logps_BT: Tensor, sampled_logps_BT: Tensor) -> Tensor:
        """Importance weights π_old/sampler, (B, T), 1 where both have the same arithmetic.

        A sampler of other precision is another policy: its tokens are reweighted to π_old (truncated importance sampling,
        Espeholt et al. 2018, section 4.1). A positive weight passes through the clipped loss unchanged.
        """
        if self._same_arithmetic:
            return torch.ones_like(old_logps_BT)
        return (old_logps_BT - sampled_logps_BT).exp().clamp(max=self.settings.importance_cap)

    def _compare(self, rewards_BT: Tensor, scores_B: Tensor, mask_BT: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Advantages without a critic, zeros with one, and what there is to say of the groups."""
        s = self.settings
        if s.advantage_estimator == "gae":
            return torch.zeros_like(rewards_BT), {}
        group_B = torch.arange(len(scores_B), device=scores_B.device) // s.num_generations
        advantages_BT = critic_free_advantages(s, rewards_BT, group_B, mask_BT)
        if s.advantage_estimator not in GROUPED:
            return advantages_BT, {}
        spread_P = scores_B.view(-1, s.num_generations).std(1)
        return advantages_BT, {"group/std": spread_P.mean(), "group/zero_std_share": (spread_P < 1e-6).double().mean()}

    def _update_minibatch(self, minibatch: Episodes, *, first: bool) -> dict[str, float]:
        s = self.settings
        advantages_BT, returns_BT = self.advantages(minibatch)
        whole = count(s, minibatch.loss_mask_BT)
        n_tokens = int(minibatch.loss_mask_BT.sum())

        def loss_of(rows: Sequence[int]) -> Share:
            index = torch.tensor(rows, device=self.policy.device)
            part = minibatch.rows(index)
            mask_BT = part.loss_mask_BT
            scores = self._scores(part.tokens, entropy=first)
            new_BT = scores.logps_BT.detach()
            old_BT = new_BT if self._single else part.old_logps_BT
            weighted_BT = advantages_BT[index] * self.weights(old_BT, part.sampled_logps_BT)
            policy = policy_loss(s, scores.logps_BT, old_BT, weighted_BT, mask_BT, whole)
            loss, share = policy.loss, float(policy.tokens) / n_tokens
            log_ratio_BT = keep(new_BT - old_BT, mask_BT)
            sums = {
                "loss/policy_avg": policy.loss.item(),
                "policy/approxkl_avg": share * 0.5 * masked_mean(log_ratio_BT.square(), mask_BT).item(),
                "policy/clipfrac_avg": share * policy.clip_fraction.item(),
                "val/ratio": share * policy.ratio_mean.item(),
            }
            if s.kl_in == "loss":
                penalty = kl_loss(s, scores.logps_BT, part.ref_logps_BT, mask_BT, whole)
                sums["loss/kl_avg"] = penalty.item()
                loss = loss + self.kl_coef * penalty
            if self.critic is not None:
                values_BT = self.critic.values(part.tokens, scores)
                value = value_loss(
                    values_BT, part.old_values_BT, returns_BT[index], mask_BT,
                    clip=s.cliprange_value, averaging=s.averaging, denominator=whole,
                )  # fmt: skip
                sums |= {"loss/value_avg": value.loss.item(), "val/clipfrac_avg": share * value.clip_fraction.item()}
                loss = loss + s.vf_coef * value.loss
            worst = {"val/ratio_max_error": keep(log_ratio_BT.exp() - 1, mask_BT).abs().max().item()}
            if first:
                self._check_first_ratio(worst["val/ratio_max_error"])
                worst["rollout/logp_max_diff"] = self._check_sampler(part, new_BT)
                assert scores.entropy_BT is not None
                sums["objective/entropy"] = share * masked_mean(scores.entropy_BT, mask_BT).item()
            return Share(loss, (sums, worst))

        with training_mode(self.policy.model, s.dropout, seed=self.seeds.integer("dropout", self.learner.optimizer.t)):
            lengths = minibatch.tokens.lengths()
            update = self.learner.update(range(len(minibatch.tokens)), loss_of, tokens=lengths)
        found = {name: sum(sums[name] for sums, _ in update.notes) for name in update.notes[0][0]}
        found |= {name: max(worst[name] for _, worst in update.notes) for name in update.notes[0][1]}
        return found | {"grad_norm": update.grad_norm, "lr": update.learning_rate}

    def _slices(self, tokens: TokenBatch) -> list[Tensor]:
        """The rows of each forward pass."""
        rows = torch.arange(len(tokens), device=self.policy.device)
        return [rows[part] for part in self.learner.slices(len(tokens), tokens.lengths())]

    def _scores(self, tokens: TokenBatch, policy: LanguagePolicy | None = None, *, entropy: bool = False) -> Scores:
        s = self.settings
        return (policy or self.policy).score(
            tokens,
            temperature=s.sampling.temperature if s.scale_logits else 1.0,
            position_ids=s.position_ids,
            entropy=entropy,
            hidden=policy is None and self.critic is not None and self.critic.needs_hidden,
        )

    def _look(self, tokens: TokenBatch, sampled_BT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities before the first update, those of the reference, and values: (B, T) each."""
        with self.learner.arithmetic():
            ref_BT = self._scores(tokens, self.reference).logps_BT
            old_BT, values_BT, scores = sampled_BT, torch.zeros_like(sampled_BT), Scores(sampled_BT)
            if self._must_score:
                scores = self._scores(tokens)
                old_BT = scores.logps_BT
            if self.critic is not None:
                values_BT = keep(self.critic.values(tokens, scores), tokens.mask_BT)
        return old_BT, ref_BT, values_BT

    @property
    def _single(self) -> bool:
        """Whether each step makes one update, so that the policy before it is the one it starts from."""
        return self.settings.ppo_epochs * self.settings.num_minibatches == 1

    @property
    def _must_score(self) -> bool:
        """Whether the policy has to read its samples before the update: a critic wants its hidden states, or the sampler's
        word is not exact where an exact one is needed."""
        if self.critic is not None and self.critic.needs_hidden:
            return True
        needed = not self._single or self.settings.kl_in == "reward"
        return needed and not (self._same_arithmetic and self._exact)

    @property
    def _same_arithmetic(self) -> bool:
        """Whether the sampler multiplied in the precision that scoring does, and on a device where that gives the same."""
        s = self.settings
        weight = next(self.policy.model.parameters())
        full = weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.float64)
        return s.sampling.precision == "model" and (s.optim.precision == "float32" and full)

    @property
    def _exact(self) -> bool:
        """Whether sampler and scorer are meant to give the same probabilities (some ablations break that on purpose)."""
        return self.settings.scale_logits and self.settings.position_ids == "mask"

    @property
    def _tolerance(self) -> float:
        return 1e-4 if self._same_arithmetic else 5e-2

    def _check_sampler(self, episodes: Episodes, scored_BT: Tensor) -> float:
        """Compare the sampler's log-probabilities with those of the scorer before any update; the largest difference."""
        mask_BT = episodes.loss_mask_BT
        distance_BT = keep((episodes.sampled_logps_BT - scored_BT).abs(), mask_BT)
        error = masked_mean(distance_BT.exp(), mask_BT).item()
        if self._exact and not self.settings.dropout and not error < (1.001 if self._same_arithmetic else 1.1):
            raise NumericsError(
                f"the sampler and the scorer disagree: mean exp|Δ log p| is {error:.4f} where 1 is right; the usual cause is a "
                "difference in temperature, in position ids or in padding between generation and scoring"
            )
        return distance_BT.max().item()

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
    settings: Online,
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
    check(settings, reward)
    ready = prepare_prompts(policy, prompts, settings)
    critic = _critic(settings, policy, reward)
    reference = reference or policy.reference()
    if settings.optim.gradient_checkpointing:
        for model in [policy.model, *([critic.network.model] if isinstance(critic, RewardCritic) else [])]:
            recompute(model)
    parameters = [*policy.parameters(), *(critic.parameters() if critic else ())]
    total = settings.steps * settings.ppo_epochs * settings.num_minibatches
    learner = Learner(parameters, settings.optim, total=total, say=run.say)
    trainer = Trainer(
        policy=policy, reference=reference, critic=critic, reward=reward, gold=gold, prompts=ready, settings=settings,
        seeds=seeds, sentinel=sentinel, learner=learner, stops=stop_tokens(policy, settings.truncate_at).to(policy.device),
        kl_coef=settings.kl_coef if kl_coef is None else kl_coef,
    )  # fmt: skip
    models: dict[str, Restorable] = {"policy": policy} | ({"critic": critic} if critic else {})
    inputs = _inputs(policy, reference, reward, prompts, seeds)
    state = resume(run, models, learner, inputs=inputs)
    trainer.kl_coef = state.get("kl_coef", trainer.kl_coef)
    metrics: dict[str, float] = state.get("metrics", {})
    with run.progress(settings.steps, title(settings), done=state["step"]) as bar:
        for step in range(state["step"], settings.steps):
            metrics = trainer.step(step)
            run.log(step + 1, {"episode": (step + 1) * settings.batch_size} | metrics)
            run.time(step + 1, trainer.seconds)
            if step == 0 or (step + 1) % settings.sample_every == 0 or step + 1 == settings.steps:
                run.samples(step + 1, trainer.shown)
            if run.asked or (step + 1) % settings.save_every == 0 or step + 1 == settings.steps:
                save(run, step + 1, models, learner, {"kl_coef": trainer.kl_coef, "metrics": metrics}, inputs=inputs)
            bar.advance(reward=metrics["objective/scores"], kl=metrics["kl/seq_nats"])
            if step + 1 < settings.steps:
                run.obey(step + 1)
    return metrics | {"kl_coef": trainer.kl_coef}


def _critic(settings: Online, policy: LanguagePolicy, reward: RewardFunction) -> Critic | None:
    if settings.critic == "reward" and isinstance(reward, RewardModel):
        return RewardCritic(reward, policy)
    return None if settings.critic == "none" else SharedCritic(policy)


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
