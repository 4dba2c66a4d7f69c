"""Reinforcement learning from a reward: prompt → rollout → reward → advantage → loss → update.

One loop for every policy-gradient method; `composition` holds the parts that differ. As PPO it keeps of Ziegler et al. 2019
and "The N Implementation Details of RLHF with PPO": the KL penalty inside the reward, token by token; the score on the last
token; whitening, GAE and the clipped losses within each minibatch; a fresh order each epoch; the adaptive KL controller in
nats per sequence. Of the textbook's PPO it drops early stopping.

The policy reads its own samples once, in the update, wherever that is enough: a sampler of the same arithmetic has said what
they were worth when they were drawn, and with a single update a step the probabilities before it are those it starts from.

Legend: B rows, T response columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from backflip.envs.text import MakeEnvironment
from backflip.errors import ConfigError, NonFiniteError, NumericsError
from backflip.maths.bits import counted
from backflip.maths.kl import adaptive_kl_coef, kl_penalty
from backflip.maths.policy_losses import value_loss
from backflip.maths.returns import gae, place_scores
from backflip.maths.tensors import aggregate, keep, masked_mean, whiten
from backflip.policies.language import LanguagePolicy, Scores, training_mode
from backflip.policies.recompute import recompute
from backflip.policies.tokens import TokenBatch
from backflip.records import Prompt, content_id
from backflip.rewards.ensemble import Ensemble
from backflip.rewards.learned import RewardModel
from backflip.rewards.protocol import RewardFunction
from backflip.rollout.draws import Rollout
from backflip.rollout.masking import Nucleus
from backflip.runs import Run
from backflip.seeds import Seeds, cyclic_batch
from backflip.settings import Online
from backflip.train.composition import GROUPED, check, count, critic_free_advantages, kl_loss, policy_loss, title
from backflip.train.critic import Critic, RewardCritic, SharedCritic
from backflip.train.episodes import Episodes, loss_mask, prepare_prompts, stop_tokens
from backflip.train.examples import Example, negative_log_likelihood
from backflip.train.gathering import SAME, Judged, Source
from backflip.train.guarding import Watcher, Watching
from backflip.train.invariants import Invariants
from backflip.train.learner import Learner, Share
from backflip.train.state import Inputs, Restorable, fingerprint, frozen_weights, resume, save
from backflip.train.trust_region import Surroundings, trust_region_step

CENTRED = ("grpo", "dr_grpo", "rloo")
"""Estimators whose advantages sum to 0 over the completions of a prompt."""


@dataclass
class Trainer:
    """Everything one run works with; `improve` builds it and calls `step`."""

    policy: LanguagePolicy
    reference: LanguagePolicy
    critic: Critic | None
    source: Source
    settings: Online
    seeds: Seeds
    learner: Learner
    kl_coef: float
    pretraining: Sequence[Example] = ()
    invariants: Invariants = field(default_factory=Invariants)
    returns: tuple[float, int] = (0.0, 0)
    """Sum and number of the returns of all steps so far: the baseline of "return-baseline"."""
    shown: list[dict[str, Any]] = field(default_factory=list)

    def step(self, step: int) -> dict[str, float]:
        """One rollout and its updates; returns the step's metrics."""
        self.source.watch.restart()
        self.invariants.metrics()  # those of a step that was skipped belong to nobody
        (prompts, rollout, judged), metrics = self.source.gather(step)
        with self.source.watch.timed("score"):
            episodes, found = self.penalize(rollout, judged)
        with self.source.watch.timed("update"):
            metrics |= found | self.update(step, episodes)
        self.control(metrics)
        self.shown = [
            {"prompt": p.plain, "completion": t, "proxy": r, "finished": bool(f)}
            | ({"gold": judged.gold[i]} if judged.gold else {})
            for i, (p, t, r, f) in enumerate(zip(prompts[:4], judged.texts, judged.proxy, judged.found_B, strict=False))
        ]
        return metrics | self.invariants.metrics()

    @torch.no_grad()
    def penalize(self, rollout: Rollout, judged: Judged) -> tuple[Episodes, dict[str, float]]:
        """Old log-probabilities and values, the reference's opinion, and the rewards: the score on the last token and, where
        the settings put it there, −β·KL_t."""
        s, tokens = self.settings, rollout.tokens
        mask_BT = loss_mask(tokens, judged.kept_B, past_the_end="mask" if s.mask_after_truncation else "train")
        if rollout.acted_BT is not None:  # what an environment said was not the policy's to say
            mask_BT = mask_BT * rollout.acted_BT
        parts = [self._look(rollout, part) for part in self._slices(tokens)]
        old_BT, ref_BT, values_BT = (torch.cat(column) for column in zip(*parts, strict=True))
        log_ratio_BT = keep(old_BT - ref_BT, mask_BT)
        rewards_BT = place_scores(judged.scores_B, mask_BT)
        if judged.inside_BT is not None:  # process rewards stand where their steps end, and the rest of the score at the end
            rewards_BT = place_scores(judged.scores_B - judged.inside_BT.sum(1), mask_BT) + judged.inside_BT
        penalty_BT = torch.zeros_like(rewards_BT)
        if s.kl_in == "reward":
            penalty_BT = -self.kl_coef * keep(kl_penalty(old_BT, ref_BT, s.kl_estimator), mask_BT)
            rewards_BT = rewards_BT + penalty_BT
        self.invariants.rollout(rollout.logps_BT, tokens.mask_BT, mask_BT, s.sampling.max_new_tokens)
        self.invariants.divergence(old_BT, ref_BT, mask_BT)
        advantages_BT, metrics = self._compare(rewards_BT, judged, mask_BT)
        spoken_BT = mask_BT
        if s.mask_unfinished:
            mask_BT = mask_BT * judged.found_B.unsqueeze(1)
            advantages_BT = keep(advantages_BT, mask_BT)
        episodes = Episodes(
            tokens=tokens, loss_mask_BT=mask_BT, sampled_logps_BT=rollout.logps_BT, old_logps_BT=old_BT, ref_logps_BT=ref_BT,
            old_values_BT=values_BT, rewards_BT=rewards_BT, advantages_BT=advantages_BT, allowed_BTS=rollout.allowed_BTS,
        )  # fmt: skip
        if rollout.allowed_BTS is not None:
            metrics["mask/allowed"] = masked_mean(counted(rollout.allowed_BTS).float(), mask_BT)
        metrics |= {
            "objective/kl": log_ratio_BT.sum(1).mean(),
            "kl/seq_nats": log_ratio_BT.sum(1).mean(),
            "kl/tok_nats": log_ratio_BT.sum() / spoken_BT.sum(),
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
        return episodes, {name: float(value) for name, value in metrics.items()} | judged.parts

    def update(self, step: int, episodes: Episodes) -> dict[str, float]:
        """`ppo_epochs` passes of `num_minibatches` updates each."""
        s, n = self.settings, len(episodes.tokens)
        if s.policy_loss == "trpo":
            return self._trust_region(step, episodes)
        history: list[dict[str, float]] = []
        for epoch in range(s.ppo_epochs):
            order = torch.tensor(self.seeds.permutation(n, "minibatch", step, epoch))
            for part in order.tensor_split(s.num_minibatches):
                # Completions of one prompt stand together, so that it is read once.
                rows = part.sort().values if s.num_generations > 1 else part
                history.append(self._update_minibatch(episodes.rows(rows.to(self.policy.device)), first=not history))
        # Entropy and the sampler's error are measured in the first minibatch alone, everything else in each.
        return history[0] | {name: sum(h[name] for h in history) / len(history) for name in history[-1]}

    def carried(self) -> dict[str, Any]:
        """What goes from step to step besides weights and optimizer, as JSON."""
        return {"kl_coef": self.kl_coef, "drawn": self.source.drawn, "returns": list(self.returns)}

    def take_up(self, state: dict[str, Any]) -> None:
        """Go on from what `carried` gave."""
        self.kl_coef = state.get("kl_coef", self.kl_coef)
        self.source.drawn = state.get("drawn", self.source.drawn)
        total, n = state.get("returns", self.returns)
        self.returns = (total, n)

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
        alone = int(mask_BT.sum()) < 2  # everything else was left out; one number has no variance
        if s.whiten_rewards and not alone:
            rewards_BT = whiten(rewards_BT, mask_BT, shift_mean=False, unbiased=s.unbiased_variance)
        advantages_BT, returns_BT = minibatch.advantages_BT, rewards_BT
        if s.advantage_estimator == "gae":
            advantages_BT, returns_BT = gae(rewards_BT, minibatch.old_values_BT, mask_BT, gamma=s.gamma, lam=s.lam)
        if s.whiten_advantages and not alone:
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

    def _compare(self, rewards_BT: Tensor, judged: Judged, mask_BT: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Advantages without a critic, zeros with one, and what there is to say of the groups."""
        s, size = self.settings, self.settings.num_generations
        if s.advantage_estimator == "gae":
            return torch.zeros_like(rewards_BT), {}
        group_B = torch.arange(len(rewards_BT), device=rewards_BT.device) // size
        baseline_B, metrics = judged.baseline_B, {}
        if s.advantage_estimator == "return-baseline":
            total, n = self.returns
            baseline_B = rewards_BT.new_full((len(rewards_BT),), total / n if n else 0.0)
            self.returns = (total + float(rewards_BT.double().sum()), n + len(rewards_BT))
        if baseline_B is not None:
            metrics["objective/baseline"] = baseline_B.mean()
        advantages_BT = critic_free_advantages(s, rewards_BT, group_B, mask_BT, baseline_B, judged.steps_BT)
        if s.advantage_estimator in CENTRED:
            self.invariants.group_means(advantages_BT, mask_BT, size)
        if s.advantage_estimator in GROUPED:
            spread_P = judged.scores_B.view(-1, size).std(1)
            metrics |= {"group/std": spread_P.mean(), "group/zero_std_share": (spread_P < SAME).double().mean()}
        return advantages_BT, metrics

    def _update_minibatch(self, minibatch: Episodes, *, first: bool) -> dict[str, float]:
        """One optimizer step on the episodes and, where it is mixed in, pretraining text."""
        s, n = self.settings, len(minibatch.tokens)
        advantages_BT, returns_BT = self.advantages(minibatch)
        texts = self._pretraining_rows(n)
        n_text = sum(len(text.response) for text in texts)

        def loss_of(rows: Sequence[int]) -> Share:
            own, theirs = [row for row in rows if row < n], [texts[row - n] for row in rows if row >= n]
            loss = torch.zeros((), device=self.policy.device)
            sums: dict[str, float] = {}
            worst: dict[str, float] = {}
            if own:
                index = torch.tensor(own, device=self.policy.device)
                loss, sums, worst = self._loss(minibatch, index, advantages_BT[index], returns_BT[index], first=first)
            if theirs:
                mixed = negative_log_likelihood(self.policy, theirs) / n_text
                sums = sums | {"loss/ptx": mixed.item()}
                loss = loss + s.ptx_coef * mixed
            return Share(loss, (sums, worst))

        with training_mode(self.policy.model, s.dropout, seed=self.seeds.integer("dropout", self.learner.optimizer.t)):
            lengths = minibatch.tokens.lengths() + [text.length for text in texts]
            update = self.learner.update(range(n + len(texts)), loss_of, tokens=lengths)
        found: dict[str, float] = {}
        for sums, worst in update.notes:
            found |= {name: found.get(name, 0.0) + value for name, value in sums.items()}
            found |= {name: max(found.get(name, 0.0), value) for name, value in worst.items()}
        return found | {"grad_norm": update.grad_norm, "lr": update.learning_rate}

    def _pretraining_rows(self, episodes: int) -> list[Example]:
        """The pretraining text of one update."""
        if not self.settings.ptx_coef:
            return []
        size = max(1, round(self.settings.ptx_ratio * episodes))
        chosen = cyclic_batch(self.seeds, len(self.pretraining), size, self.learner.optimizer.t, purpose="pretraining")
        return [self.pretraining[i] for i in chosen]

    def _loss(
        self, minibatch: Episodes, index: Tensor, advantages_BT: Tensor, returns_BT: Tensor, *, first: bool
    ) -> tuple[Tensor, dict[str, float], dict[str, float]]:
        """The share of a minibatch's loss that the rows `index` have, what adds up over its parts, and what is the worst of
        them."""
        s, whole = self.settings, count(self.settings, minibatch.loss_mask_BT)
        n_tokens = max(1, int(minibatch.loss_mask_BT.sum()))
        part = minibatch.rows(index)
        mask_BT = part.loss_mask_BT
        scores = self._scores(part.tokens, part.allowed_BTS, entropy=first, entropy_gradient=s.entropy_coef > 0)
        new_BT = scores.logps_BT.detach()
        old_BT = new_BT if self._single else part.old_logps_BT
        weighted_BT = advantages_BT * self.weights(old_BT, part.sampled_logps_BT)
        policy = policy_loss(s, scores.logps_BT, old_BT, weighted_BT, mask_BT, whole)
        loss, share = policy.loss, float(policy.tokens) / n_tokens
        log_ratio_BT = keep(new_BT - old_BT, mask_BT)
        sums = {
            "loss/policy_avg": policy.loss.item(),
            "policy/approxkl_avg": share * 0.5 * masked_mean(log_ratio_BT.square(), mask_BT).item(),
            "policy/clipfrac_avg": share * policy.clip_fraction.item(),
            "val/ratio": share * policy.ratio_mean.item(),
        }
        if s.entropy_coef:
            assert scores.entropy_BT is not None
            bonus = aggregate(scores.entropy_BT, mask_BT, s.averaging, denominator=whole)
            loss = loss - s.entropy_coef * bonus
        if s.kl_in == "loss":
            penalty = kl_loss(s, scores.logps_BT, part.ref_logps_BT, mask_BT, whole)
            sums["loss/kl_avg"] = penalty.item()
            loss = loss + self.kl_coef * penalty
        if self.critic is not None:
            value, clipped = self._value_loss(part, scores, returns_BT, whole)
            sums |= {"loss/value_avg": value.item(), "val/clipfrac_avg": share * clipped}
            loss = loss + s.vf_coef * value
        worst = {"val/ratio_max_error": keep(log_ratio_BT.exp() - 1, mask_BT).abs().max().item()}
        if first:
            worst |= self._check_first(part, new_BT, log_ratio_BT)
            assert scores.entropy_BT is not None
            sums["objective/entropy"] = share * masked_mean(scores.entropy_BT.detach(), mask_BT).item()
        return loss, sums, worst

    def _value_loss(self, part: Episodes, scores: Scores, returns_BT: Tensor, whole: Tensor) -> tuple[Tensor, float]:
        """The critic's loss on some rows, and the share of its tokens whose clip was at work."""
        s = self.settings
        assert self.critic is not None
        value = value_loss(
            self.critic.values(part.tokens, scores), part.old_values_BT, returns_BT, part.loss_mask_BT,
            clip=s.cliprange_value, averaging=s.averaging, denominator=whole,
        )  # fmt: skip
        return value.loss, value.clip_fraction.item()

    def _trust_region(self, step: int, episodes: Episodes) -> dict[str, float]:
        """TRPO: one step of the policy on all episodes, then the critic's updates on what the policy was before."""
        s, mask_BT = self.settings, episodes.loss_mask_BT
        advantages_BT, returns_BT = self.advantages(episodes)
        whole = count(s, mask_BT)
        places = self._slices(episodes.tokens)
        parts = [episodes.rows(rows) for rows in places]
        metrics: dict[str, float] = {"objective/entropy": 0.0}
        hidden: list[Scores] = []
        with torch.no_grad(), self.learner.arithmetic():
            for part in parts:
                scores = self._scores(part.tokens, part.allowed_BTS, entropy=True)
                assert scores.entropy_BT is not None
                share = masked_mean(scores.entropy_BT, part.loss_mask_BT).item() * float(part.loss_mask_BT.sum())
                metrics["objective/entropy"] += share / max(1, int(mask_BT.sum()))
                log_ratio_BT = keep(scores.logps_BT - part.old_logps_BT, part.loss_mask_BT)
                for name, value in self._check_first(part, scores.logps_BT, log_ratio_BT).items():
                    metrics[name] = max(metrics.get(name, 0.0), value)
                hidden.append(scores)

        def logps(i: int) -> Tensor:
            with self.learner.arithmetic():
                return self._scores(parts[i].tokens, parts[i].allowed_BTS).logps_BT

        def loss(i: int, logps_BT: Tensor) -> Tensor:
            part = parts[i]
            weighted_BT = advantages_BT[places[i]] * self.weights(part.old_logps_BT, part.sampled_logps_BT)
            return policy_loss(s, logps_BT, part.old_logps_BT, weighted_BT, part.loss_mask_BT, whole).loss

        taken = trust_region_step(
            [p for _, p in self.policy.parameters()], range(len(parts)),
            Surroundings(logps, loss, lambda i: parts[i].loss_mask_BT),
            max_kl=s.trust_kl, iterations=s.trust_iterations, damping=s.trust_damping,
        )  # fmt: skip
        metrics |= {
            "grad_norm": taken.grad_norm, "trust/kl_tok_nats": taken.kl, "trust/improvement": taken.improvement,
            "trust/taken": taken.taken,
        }  # fmt: skip
        return metrics | self._fit_critic(parts, hidden, [returns_BT[rows] for rows in places], whole)

    def _fit_critic(
        self, parts: Sequence[Episodes], hidden: Sequence[Scores], returns: Sequence[Tensor], whole: Tensor
    ) -> dict[str, float]:
        """`ppo_epochs` updates of the critic alone, on what it reads in the policy as it was."""
        if self.critic is None:
            return {}

        def loss_of(rows: Sequence[int]) -> Share:
            total = torch.zeros((), device=self.policy.device)
            for i in rows:
                total = total + self._value_loss(parts[i], hidden[i], returns[i], whole)[0]
            return Share(self.settings.vf_coef * total)

        updates = [self.learner.update(range(len(parts)), loss_of) for _ in range(self.settings.ppo_epochs)]
        return {"loss/value_avg": updates[0].loss / max(self.settings.vf_coef, 1e-12), "lr": updates[-1].learning_rate}

    def _slices(self, tokens: TokenBatch) -> list[Tensor]:
        """The rows of each forward pass."""
        rows = torch.arange(len(tokens), device=self.policy.device)
        return [rows[part] for part in self.learner.slices(len(tokens), tokens.lengths())]

    def _scores(
        self, tokens: TokenBatch, allowed_BTS: Tensor | None = None, policy: LanguagePolicy | None = None, *,
        entropy: bool = False, entropy_gradient: bool = False,
    ) -> Scores:  # fmt: skip
        s = self.settings
        return (policy or self.policy).score(
            tokens,
            allowed_BTS=allowed_BTS,
            temperature=s.sampling.temperature if s.scale_logits else 1.0,
            position_ids=s.position_ids,
            entropy=entropy,
            entropy_gradient=entropy_gradient,
            hidden=policy is None and self.critic is not None and self.critic.needs_hidden,
        )

    def _look(self, rollout: Rollout, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities before the first update, those of the reference, and values: (B, T) each, of some rows.

        The reference may draw any token: what is penalised is how far the policy went, its mask included.
        """
        tokens, sampled_BT = rollout.tokens.rows(rows), rollout.logps_BT[rows]
        with self.learner.arithmetic():
            ref_BT = self._scores(tokens, None, self.reference).logps_BT
            old_BT, values_BT, scores = sampled_BT, torch.zeros_like(sampled_BT), Scores(sampled_BT)
            if self._must_score:
                scores = self._scores(tokens, None if rollout.allowed_BTS is None else rollout.allowed_BTS[rows])
                old_BT = scores.logps_BT
            if self.critic is not None:
                values_BT = keep(self.critic.values(tokens, scores), tokens.mask_BT)
        return old_BT, ref_BT, values_BT

    @torch.no_grad()
    def read(self, rollout: Rollout, policy: LanguagePolicy) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities of a rollout under a policy and under the reference, and the policy's entropy, (B, T) each."""
        columns: list[tuple[Tensor, Tensor, Tensor]] = []
        for rows in self._slices(rollout.tokens):
            tokens, allowed_BTS = rollout.tokens.rows(rows), None if rollout.allowed_BTS is None else rollout.allowed_BTS[rows]
            with self.learner.arithmetic():
                own = self._scores(tokens, allowed_BTS, policy, entropy=True)
                ref = self._scores(tokens, None, self.reference)
            assert own.entropy_BT is not None
            columns.append((own.logps_BT, ref.logps_BT, own.entropy_BT))
        own_BT, ref_BT, entropy_BT = (torch.cat(column) for column in zip(*columns, strict=True))
        return own_BT, ref_BT, entropy_BT

    @property
    def _single(self) -> bool:
        """Whether each step makes one update, so that the policy before it is the one it starts from."""
        s = self.settings
        return s.policy_loss != "trpo" and s.ppo_epochs * s.num_minibatches == 1

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

    def _check_first(self, episodes: Episodes, scored_BT: Tensor, log_ratio_BT: Tensor) -> dict[str, float]:
        """What must hold before any update; the sampler's error."""
        s, mask_BT = self.settings, episodes.loss_mask_BT
        if not s.dropout:
            self.invariants.first_ratio(log_ratio_BT, mask_BT, exact=self._same_arithmetic)
        if s.dropout or not self._exact:
            return {"rollout/logp_max_diff": keep((episodes.sampled_logps_BT - scored_BT).abs(), mask_BT).max().item()}
        return self.invariants.sampler(episodes.sampled_logps_BT, scored_BT, mask_BT, exact=self._same_arithmetic)


def improve(
    policy: LanguagePolicy,
    prompts: Sequence[Prompt],
    reward: RewardFunction | None,
    settings: Online,
    run: Run,
    *,
    seeds: Seeds,
    environment: MakeEnvironment | None = None,
    gold: RewardFunction | None = None,
    sentinel: RewardFunction | None = None,
    watching: Watching | None = None,
    pretraining: Sequence[Example] = (),
    reference: LanguagePolicy | None = None,
    kl_coef: float | None = None,
) -> dict[str, float]:
    """Improve `policy` in place against `reward` and return the last step's metrics.

    A step in which something is not finite is skipped, counted and said; too many of them stop the run. `pretraining` is the
    text that `ptx_coef` mixes in. With an `environment` every completion is an episode of several turns, scored by what it earns
    there and by `reward`, which may then be None. `reference` (default: a copy of the policy as it comes) is what the KL penalty
    pulls towards; `kl_coef` overrides the initial β; `gold`, where the truth is known, and `sentinel`, a second reward model,
    are only measured. Who is `watching` may pause the run, or stop it: then `policy` ends as the best one they named. Raises
    ConfigError, also when a run is resumed with another reference, reward model, seed or other prompts than it was begun with,
    DataError and NumericsError.
    """
    check(settings, reward, environment)
    if settings.ptx_coef and not pretraining:
        raise ConfigError("ptx_coef mixes in pretraining text and none was given; give some, or set ptx_coef to 0")
    ready = prepare_prompts(policy, prompts, settings)
    critic = _critic(settings, policy, reward)
    reference = reference or (policy.frozen_copy() if settings.reference_every else policy.reference())
    if settings.optim.gradient_checkpointing:
        for model in [policy.model, *([critic.network.model] if isinstance(critic, RewardCritic) else [])]:
            recompute(model)
    parameters = [*policy.parameters(), *(critic.parameters() if critic else ())]
    total = settings.steps * settings.ppo_epochs * settings.num_minibatches
    learner = Learner(parameters, settings.optim, total=total, say=run.say)
    source = Source(
        policy=policy, prompts=ready, reward=reward, gold=gold, sentinel=sentinel, settings=settings, seeds=seeds,
        stops=stop_tokens(policy, settings.truncate_at).to(policy.device), mask=_mask(settings, policy), environment=environment,
    )  # fmt: skip
    trainer = Trainer(
        policy=policy, reference=reference, critic=critic, source=source, settings=settings, seeds=seeds, learner=learner,
        kl_coef=settings.kl_coef if kl_coef is None else kl_coef, pretraining=pretraining, invariants=Invariants(run.say),
    )  # fmt: skip
    models: dict[str, Restorable] = {"policy": policy} | ({"critic": critic} if critic else {})
    inputs = _inputs(policy, reference, reward, prompts, seeds, pretraining)
    if settings.reference_every:
        models["reference"] = reference
    if source.mask is not None:
        models["mask"] = source.mask.policy
    state = resume(run, models, learner, inputs=inputs)
    trainer.take_up(state)
    watcher = Watcher(watching, source, reference, trainer.read, seeds, run) if watching is not None else None
    if watcher is not None:
        watcher.take_up(state)
    metrics: dict[str, float] = state.get("metrics", {})
    skipped: int = state.get("skipped", 0)
    with run.progress(settings.steps, title(settings), done=state["step"]) as bar:
        for step in range(state["step"], settings.steps):
            if watcher is not None and watcher.stopped:
                break
            try:
                metrics = trainer.step(step) | {"invariants/skipped_steps": float(skipped)}
            except NonFiniteError as problem:
                skipped += 1
                if skipped > settings.max_skipped or skipped == settings.steps:  # not one step has taught anything
                    raise NumericsError(
                        f"step {step + 1}: {problem} (steps skipped for such reasons: {skipped - 1})"
                    ) from problem
                run.say(f"step {step + 1} was skipped: {problem}")
                metrics = metrics | {"invariants/skipped_steps": float(skipped)}
            if settings.reference_every and (step + 1) % settings.reference_every == 0:
                reference.model.load_state_dict(policy.model.state_dict())
            if source.mask is not None and (step + 1) % settings.mask_every == 0:
                source.mask.policy.model.load_state_dict(policy.model.state_dict())
            looked = watcher.look(step + 1) if watcher is not None and watcher.due(step + 1) else {}
            last = step + 1 == settings.steps or (watcher is not None and watcher.stopped)
            run.log(step + 1, {"episode": (step + 1) * settings.batch_size} | metrics | looked)
            run.time(step + 1, source.watch.seconds)
            if trainer.shown and (step == 0 or (step + 1) % settings.sample_every == 0 or last):
                run.samples(step + 1, trainer.shown)
            if run.asked or (step + 1) % settings.save_every == 0 or last:
                kept = trainer.carried() | {"metrics": metrics, "skipped": skipped}
                if watcher is not None:
                    kept |= watcher.carried()
                save(run, step + 1, models, learner, kept, inputs=inputs)
            bar.advance(reward=metrics.get("objective/scores", 0.0), kl=metrics.get("kl/seq_nats", 0.0))
            if not last:
                run.obey(step + 1)
    if watcher is not None:
        watcher.finish()
    if not settings.reference_every and not reference.bare:
        same = fingerprint(reference.model.named_parameters())
        trainer.invariants.same_reference(str(inputs["initial policy (the reference)"]), same)
    return metrics | {"kl_coef": trainer.kl_coef}


def _mask(settings: Online, policy: LanguagePolicy) -> Nucleus | None:
    if settings.mask_top_p is None:
        return None
    return Nucleus(policy.frozen_copy("mask"), settings.mask_top_p, settings.mask_keep)


def _critic(settings: Online, policy: LanguagePolicy, reward: RewardFunction | None) -> Critic | None:
    if settings.critic == "reward" and isinstance(reward, RewardModel):
        return RewardCritic(reward, policy)
    return None if settings.critic == "none" else SharedCritic(policy)


def _inputs(
    policy: LanguagePolicy, reference: LanguagePolicy, reward: RewardFunction | None, prompts: Sequence[Prompt], seeds: Seeds,
    pretraining: Sequence[Example],
) -> Inputs:  # fmt: skip
    """What no checkpoint holds and the run depends on. A reward function that is not a model cannot be recognised."""
    inputs: dict[str, str | int] = {
        "seed": seeds.root,
        "prompts": content_id([prompt.id for prompt in prompts]),
        "initial policy (the reference)": fingerprint(reference.model.named_parameters()),
        "frozen weights": frozen_weights(policy),
    }
    if pretraining:
        inputs["pretraining text"] = content_id(list(pretraining))
    if isinstance(reward, RewardModel | Ensemble):
        if isinstance(reward, Ensemble):
            inputs["way to combine members"] = content_id(reward.combine, reward.uncertainty)
        inputs["reward model"] = content_id(fingerprint(reward.parameters()), reward.bias)
    return inputs
