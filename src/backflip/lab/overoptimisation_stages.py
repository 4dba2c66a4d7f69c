"""The work of `overoptimisation` and `stiennon`: a policy, samples of it, proxies, PPO against them.

SEED/policy/           SEED/comparisons.json   SEED/bodyW/              what models of width W start from
SEED/pool.json         the first policy's samples, with gold
SEED/proxyW-N/         a proxy of width W and N comparisons, proxyW-N-againR/ of others       SEED/ensembleW-N/
SEED/scores/NAME.json  what a proxy, or every member of an ensemble, thinks of the pool
SEED/ppo-W-N-BETA/     a run against a proxy, every look of it in looks/ with prompts, completions, gold, proxy and KL

What another experiment has finished can be borrowed: it is read where it is and never written to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from backflip.errors import ConfigError
from backflip.lab.guard_recorder import Seen, read
from backflip.lab.guard_stages import watched_run
from backflip.lab.overoptimisation_settings import Optimised
from backflip.lab.reviews_base import compared, demonstrated
from backflip.lab.stages import kept
from backflip.maths.overoptimisation import Floats
from backflip.policies.loading import load_policy
from backflip.records import Comparison, Prompt
from backflip.rewards.ensemble import Ensemble, load_reward
from backflip.rollout.local import generate_samples
from backflip.runs import Run
from backflip.runs.atomic import once
from backflip.runs.logs import read_object
from backflip.seeds import Seeds
from backflip.settings import Reward
from backflip.train.fitting import fit
from backflip.train.reward_run import body_of
from backflip.worlds.reviews import Reviews

AT_ONCE = 512
"""Texts that a proxy reads together; small models lose more time between batches than in them."""


class Pool(NamedTuple):
    """The first policy's samples of P prompts, N of each, with their gold, (P, N), in the world's unit."""

    prompts: list[Prompt]
    texts: list[list[str]]
    gold_PN: Floats


class Proxy(NamedTuple):
    """A reward model: its width, how many comparisons it has seen, where it is, and its accuracy on those held out."""

    width: int
    comparisons: int
    model: Path
    accuracy: float

    @property
    def name(self) -> str:
        """How it is called in folders."""
        return f"{self.width}-{self.comparisons}"


@dataclass
class Bench:
    """One seed's policy, samples, proxies and runs. Raises ConfigError where nothing can be borrowed in `lender`."""

    folder: Path
    settings: Optimised
    seeds: Seeds
    quiet: bool
    most: int
    """Comparisons that are asked for."""
    lender: Path | None = None
    """The folder of the same seed of another experiment."""

    def __post_init__(self) -> None:
        self.world = Reviews()
        if self.lender is not None and self._lent("policy") is None:
            raise ConfigError(
                f"there is no finished policy in {self.lender}; run `backflip lab run overoptimisation` with --out the folder of "
                "the seeds first, or leave --set runs=… out to make everything here"
            )

    def _lent(self, name: str) -> Path | None:
        """Where another experiment has finished a stage."""
        if self.lender is None:
            return None
        there = self.lender / name
        done = there if there.suffix == ".json" else there / "result.json"
        return there if done.exists() else None

    def _model(self, name: str, make: Callable[[Path], Path]) -> Path:
        there = self._lent(name)
        return make(self.folder / name) if there is None else there / "model"

    def _figures(self, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        there = self._lent(name)
        return kept(self.folder / name, measure) if there is None else read_object(there)

    @cached_property
    def policy(self) -> Path:
        """The first policy."""
        return self._model("policy", lambda folder: demonstrated(folder, self.settings, self.seeds, self.quiet))

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """The comparisons that proxies learn from, of the first policy's samples, the most that anybody needs."""
        lent = self._lent("comparisons.json")
        path = self.folder / "comparisons.json" if lent is None else lent
        s = self.settings
        found = compared(path, self.policy, self.most, s.noise, s.ppo.sampling, self.seeds)
        if len(found) < self.most:
            raise ConfigError(f"{path} holds {len(found)} comparisons, not the {self.most} that are to be learned from")
        return found

    @cached_property
    def pool(self) -> Pool:
        """Samples of the first policy on prompts that nobody learns from, all different as long as there are so many."""

        def draw() -> dict[str, Any]:
            s = self.settings
            drawn = self.world.prompts(8 * s.prompts, self.seeds.child("pool"), "test")
            prompts = [*{prompt.id: prompt for prompt in drawn}.values(), *drawn][: s.prompts]
            groups = generate_samples(
                load_policy(self.policy), prompts, n=s.samples, seeds=self.seeds.child("best"), settings=s.ppo.sampling
            )
            texts = [[sample.text for sample in group] for group in groups]
            gold = [[self.world.gold(p, text) for text in row] for p, row in zip(prompts, texts, strict=True)]
            return {"prompts": [p.plain for p in prompts], "texts": texts, "gold": gold}

        found = self._figures("pool.json", draw)
        return Pool([Prompt(p) for p in found["prompts"]], found["texts"], np.array(found["gold"]))

    def body(self, width: int) -> Path:
        """A language model of that width, which has read the demonstrations and from which reward models start."""
        seeds = self.seeds.child("body", width)
        return self._model(
            f"body{width}", lambda folder: demonstrated(folder, self.settings, seeds, self.quiet, self.settings.proxy(width))
        )

    def proxy(self, width: int, n: int, settings: Reward | None = None, repeat: int = 0) -> Proxy:
        """A proxy of the first n comparisons, or as the `repeat`th again of n others; with settings of an ensemble an ensemble.

        Scores have mean 0 and deviation 1 on the compared texts, which are the first policy's.
        """
        settings = settings or self.settings.reward
        name = f"{'proxy' if settings.ensemble.members == 1 else 'ensemble'}{width}-{n}{f'-again{repeat}' if repeat else ''}"

        def make(folder: Path) -> Path:
            with Run.open(folder, kind="reward", settings=settings, quiet=self.quiet, keep=1) as run:
                if not run.finished:
                    begin, seeds = body_of(load_policy(self.body(width)), settings), self.seeds.child(name)
                    found = fit(begin, self.comparisons[n * repeat : n * (repeat + 1)], settings, run, seeds=seeds)
                    once(folder / "model", found.model.save)
                    run.finish({"accuracy": found.report.accuracy})
            return folder / "model"

        model = self._model(name, make)
        return Proxy(width, n, model, float(read_object(model.parent / "result.json")["accuracy"]))

    def scores(self, proxy: Proxy) -> Floats:
        """What a proxy thinks of the pool, (K, P, N): K is 1, or the members of an ensemble. Equal texts are read once."""

        def measure() -> dict[str, Any]:
            model = load_reward(proxy.model)
            members = model.members if isinstance(model, Ensemble) else [model]
            found = []
            for member in members:
                member.batch_size = AT_ONCE
                rows = []
                for prompt, texts in zip(self.pool.prompts, self.pool.texts, strict=True):
                    different = list(dict.fromkeys(texts))
                    known = dict(zip(different, member([prompt] * len(different), different), strict=True))
                    rows.append([round(known[text], 6) for text in texts])
                found.append(rows)
            return {"scores": found}

        return np.array(self._figures(f"scores/{proxy.model.parent.name}.json", measure)["scores"])

    def optimised(self, proxy: Proxy, beta: float) -> list[Seen]:
        """PPO against a proxy with a KL penalty of β, to its end: its looks, on the prompts of the pool in turn."""
        name = f"ppo-{proxy.name}-{beta:g}"
        there = self._lent(name)
        if there is not None:
            return read(there / "looks")
        prompts = self.pool.prompts
        on = [prompts[i % len(prompts)] for i in range(self.settings.watch.prompts)]
        # The same prompts and random numbers against every proxy and under every β: what differs is the reward.
        return watched_run(
            self.folder / name, self.policy, proxy.model, {}, self.settings.penalised(beta), self.settings.watch,
            self.seeds.child("ppo"), self.quiet, on=on,
        )  # fmt: skip


def flat(rows: Sequence[Seen]) -> dict[str, list[float]]:
    """The means of every look: step, gold and proxy in their own units, KL in nats a sequence."""
    return {
        "step": [float(s.look.step) for s in rows], "gold": [s.worth for s in rows],
        "proxy": [float(np.mean(s.look.proxy)) for s in rows], "kl": [float(np.mean(s.look.kl)) for s in rows],
    }  # fmt: skip
