"""Looking at a policy while it is improved, for somebody who may stop that.

    RUN/guard.json   what the guard saw and decided, written anew at every look
    RUN/best/        the policy that it named the best, one checkpoint

A look draws one completion for each of the same prompts with the same random numbers, so that two looks can be compared prompt
by prompt; nothing is learned from it, and gold is never part of it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from backflip.errors import ConfigError
from backflip.maths.tensors import keep
from backflip.policies.language import LanguagePolicy
from backflip.records import Prompt
from backflip.rewards.ensemble import Ensemble
from backflip.rewards.learned import RewardModel
from backflip.rewards.protocol import RewardFunction, score
from backflip.rollout.conversation import converse
from backflip.rollout.draws import Rollout
from backflip.rollout.local import generate
from backflip.runs import Run, control
from backflip.runs.atomic import write_atomic
from backflip.runs.checkpoints import Checkpoints
from backflip.runs.watching import GUARD_FILE, Guard, Look
from backflip.seeds import Seeds
from backflip.train.episodes import loss_mask, prepare_prompts
from backflip.train.gathering import Judged, Source
from backflip.train.stopwatch import Stopwatch

Reader = Callable[[Rollout, LanguagePolicy], tuple[Tensor, Tensor, Tensor]]
"""Log-probabilities of a rollout under a policy and the reference, and the policy's entropy, (B, T) each."""

DIMENSIONS = 32
"""Most dimensions of the hidden states that a guard is shown; wider ones are projected at random, which keeps distances."""


@dataclass(frozen=True, kw_only=True)
class Watching:
    """Who watches a run: the guard, the prompts it is shown completions of, how many steps lie between two looks, and the
    reward functions that judge them besides the proxy. With `vectors`, of the first judge that is a model also hidden states.
    `by_reference` measures what the policy writes by what its reference does, not by what it writes as it comes."""

    guard: Guard
    prompts: Sequence[Prompt]
    every: int
    judges: Mapping[str, RewardFunction] = field(default_factory=dict)
    vectors: bool = True
    by_reference: bool = False

    def outcome(self) -> dict[str, Any]:
        """What became of the run, for its result: whether it was stopped, where it went back to, and what for."""
        ruling, report = self.guard.ruling, self.guard.report()
        stopped = ruling.act == "stop"
        return {
            "stopped": stopped,
            "rolled_back_to": ruling.best if stopped else None,
            "findings": report["findings"],
        }


class Watcher:
    """Makes the looks of one run and does what its guard says. Raises ConfigError for settings that leave nothing to look at."""

    def __init__(
        self, watching: Watching, source: Source, reference: LanguagePolicy, reader: Reader, seeds: Seeds, run: Run
    ) -> None:  # fmt: skip
        if watching.every < 1 or not watching.prompts:
            raise ConfigError("a run is watched every so many steps, at least 1, on prompts kept from it; give both")
        plain = dataclasses.replace(source.settings, advantage_estimator="return", num_generations=1)
        ready = prepare_prompts(source.policy, watching.prompts, source.settings)
        self.watching, self.guard, self.reader, self.run = watching, watching.guard, reader, run
        self.reference = reference
        self.source = dataclasses.replace(
            source, prompts=ready, settings=plain, gold=None, sentinel=None, watch=Stopwatch()
        )  # fmt: skip
        self.seeds = seeds.child("guard")
        self.best = Checkpoints(run.folder / "best", keep=1, sync=run.sync, warn=run.say)

    @property
    def stopped(self) -> bool:
        """Whether the guard said so."""
        return self.guard.ruling.act == "stop"

    def due(self, step: int) -> bool:
        """Whether the policy is looked at after so many steps."""
        return step % self.watching.every == 0

    def carried(self) -> dict[str, Any]:
        """What a checkpoint must hold of it, as JSON."""
        return {"guard": self.guard.state()}

    def take_up(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint, or begin with a look at the policy as it comes, after one at its reference where that is what
        looks are measured by."""
        self.best.drop_after(state["step"])
        if "guard" in state:
            self.guard.take_up(state["guard"])
            self._write()
        else:
            if self.watching.by_reference:
                self.guard.measure_by(self._look(0, self.reference))
            self.look(0)

    def look(self, step: int) -> dict[str, float]:
        """Show the guard what the policy writes now, keep the policy where it is the best, and return the look's figures."""
        ruling = self.guard.look(self._look(step, self.source.policy))
        if ruling.best == step:
            with self.best.writing(step) as folder:
                (folder / "policy").mkdir()
                self.source.policy.save(folder / "policy")
        self._write()
        for finding in ruling.findings:
            self.run.say(f"{finding.act}: {finding.sentence}")
        if ruling.act == "pause":
            control.pause(self.run.folder, by="the monitor")
        return dict(ruling.figures)

    def finish(self) -> None:
        """Where the run was stopped, make the policy the best one again."""
        if not self.stopped:
            return
        best = self.best.latest()
        if best is None or best.step != self.guard.ruling.best:
            raise ConfigError(
                f"the policy of step {self.guard.ruling.best}, to go back to, is not in {self.best.folder}; restore the folder"
            )
        self.run.say(f"stopped by the monitor; the policy is that of step {best.step} again")
        self.source.policy.restore(best.path / "policy")

    def _write(self) -> None:
        write_atomic(self.run.folder / GUARD_FILE, json.dumps(self.guard.report(), indent=1, ensure_ascii=False) + "\n")

    @torch.no_grad()
    def _look(self, step: int, policy: LanguagePolicy) -> Look:
        prompts, rollout = self._sample(policy)
        judged = self.source.judge(prompts, rollout)
        kl_B, entropy = self._distance(rollout, judged, policy)
        judges = {name: score(judge, prompts, judged.texts) for name, judge in self.watching.judges.items()}
        return Look(
            step=step, prompts=[p.plain for p in prompts], completions=judged.texts, proxy=judged.proxy, kl=kl_B.tolist(),
            entropy=entropy, lengths=judged.kept_B.tolist(), finished=judged.found_B.tolist(), judges=judges,
            vectors=self._vectors(prompts, judged.texts),
        )  # fmt: skip

    def _sample(self, policy: LanguagePolicy) -> tuple[list[Prompt], Rollout]:
        source = self.source
        queries, prompts = [row.ids for row in source.prompts], [row.prompt for row in source.prompts]
        if source.environment is None:
            return prompts, generate(policy, queries, source.settings.sampling, seeds=self.seeds, mask=source.mask)
        return prompts, converse(
            policy, queries, prompts, source.environment, source.settings.sampling, seeds=self.seeds, mask=source.mask
        )

    def _distance(self, rollout: Rollout, judged: Judged, policy: LanguagePolicy) -> tuple[Tensor, float]:
        """log π/ρ of each completion, (B,), over the tokens that the loss would count; and the entropy in nats per token."""
        past: Literal["train", "mask"] = "mask" if self.source.settings.mask_after_truncation else "train"
        mask_BT = loss_mask(rollout.tokens, judged.kept_B, past_the_end=past)
        if rollout.acted_BT is not None:
            mask_BT = mask_BT * rollout.acted_BT
        own_BT, reference_BT, entropy_BT = self.reader(rollout, policy)
        kl_B = keep(own_BT - reference_BT, mask_BT).double().sum(1)
        return kl_B, float(keep(entropy_BT, mask_BT).double().sum() / mask_BT.sum())

    def _vectors(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> list[list[float]] | None:
        models = [judge for judge in self.watching.judges.values() if isinstance(judge, RewardModel | Ensemble)]
        if not models or not self.watching.vectors:
            return None
        first = models[0].members[0] if isinstance(models[0], Ensemble) else models[0]
        found_ND = first.hidden(prompts, texts).double()
        if found_ND.shape[1] > DIMENSIONS:
            chosen = torch.randn(found_ND.shape[1], DIMENSIONS, generator=self.seeds.torch("projection"), dtype=torch.float64)
            found_ND = found_ND @ chosen / DIMENSIONS**0.5
        return [[float(value) for value in row] for row in found_ND.tolist()]
