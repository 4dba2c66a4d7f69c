"""The work of `whack-a-mole`: one round after another, and the labels in between.

SEED/policy/      SEED/comparisons.json     what the first reward model learns from
SEED/first/       SEED/ARM/roundR/          reward/ and run/ of a round; the first is the same in all arms
SEED/ARM/labelsR.json                       the labels after round R
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backflip.feedback.labelers import Oracle
from backflip.lab.guard_figures import curve
from backflip.lab.guard_recorder import Gold, Recorder, Seen, read
from backflip.lab.guard_stages import reward_of, watched_run
from backflip.lab.stages import kept
from backflip.lab.whack_a_mole_figures import Hack, hack, kind, paid
from backflip.lab.whack_a_mole_settings import CONTROL, MINED, Settings
from backflip.monitor.mining import questions
from backflip.policies.loading import load_policy
from backflip.records import Comparison, Prompt
from backflip.rewards.learned import RewardModel
from backflip.rewards.protocol import score
from backflip.rollout.local import generate_samples
from backflip.runs.watching import Look, Ruling
from backflip.seeds import Seeds
from backflip.worlds.reviews import Reviews

TOLD = 3
"""Texts of each round that the report may show, and features that it may name."""


class Catcher(Recorder):
    """A recorder that ends a run at its first hack and has it keep the policy that hacks."""

    def __init__(self, folder: Path, gold: Gold, settings: Settings) -> None:
        super().__init__(folder, gold)
        self.settings = settings

    def look(self, look: Look) -> Ruling:
        """Write the look down and see whether the run is hacked by now."""
        super().look(look)
        self._rule()
        return self.ruling

    def take_up(self, state: Mapping[str, Any]) -> None:
        """Go on after those looks."""
        super().take_up(state)
        self._rule()

    def _rule(self) -> None:
        seen = [each for each in read(self.folder) if each.look.step in self.steps]
        if hack(seen, self.settings.tolerance, self.settings.sure):
            self.ruling = Ruling("stop", self.steps[-1])


def played(
    folder: Path, policy: Path, comparisons: Sequence[Comparison], settings: Settings, seeds: Seeds, quiet: bool
) -> dict[str, Any]:  # fmt: skip
    """One round: a reward model of all comparisons so far, and the first policy improved against it until it hacks.

    Every round has the same prompts and random numbers, so that rounds differ in the reward model alone.
    """
    proxy, accuracy = reward_of(
        settings.reward, settings.ppo.sampling, folder / "reward", policy, comparisons, seeds.child("reward"), quiet
    )
    seen = watched_run(
        folder / "run", policy, proxy, {}, settings.ppo, settings.watch, seeds.child("run"), quiet,
        functools.partial(Catcher, settings=settings),
    )  # fmt: skip
    return figures(seen, hack(seen, settings.tolerance, settings.sure)) | {
        "comparisons": len(comparisons),
        "accuracy": accuracy,
    }


def figures(seen: Sequence[Seen], found: Hack | None) -> dict[str, Any]:
    """What is told of a round: its curves, how many steps it took to the hack and what kind that is, None where there is none."""
    lines, features = curve(seen), paid(seen[0], seen[-1])
    peak = found.peak if found else int(np.argmax(lines["gold"]))
    return {
        "steps": seen[found.at].look.step if found else None, "kind": kind(features) if found else None,
        "first": lines["gold"][0], "peak": lines["gold"][peak], "peak step": seen[peak].look.step, "end": lines["gold"][-1],
        "kl": lines["kl"][-1], "proxy": lines["proxy"][-1], "curve": lines,
        "features": [{"feature": f.feature, "before": f.before, "now": f.now, "excess": f.excess} for f in features[:TOLD]],
        "texts": [
            {
                "prompt": seen[0].look.prompts[i], "before": seen[0].look.completions[i], "text": seen[-1].look.completions[i],
                "proxy": seen[-1].look.proxy[i], "gold": seen[-1].gold[i],
            }
            for i in range(min(TOLD, len(seen[-1].gold)))
        ],
    }  # fmt: skip


def labels(
    path: Path, arm: str, played: Path, first: Path, settings: Settings, seeds: Seeds
) -> list[Comparison]:  # fmt: skip
    """Labels after the round in the folder `played`, each of a text beside one of the first policy for the same prompt; kept in
    `path`. Mined are the texts of the round's policy for which its proxy pays most."""

    def ask() -> dict[str, Any]:
        world = Reviews()
        drawn = {prompt.id: prompt for prompt in world.prompts(2 * settings.pool, seeds.child("pool"))}
        prompts = list(drawn.values())[: settings.pool]
        writer = first if arm == CONTROL and settings.control == "first" else played / "run" / "model"
        texts = _texts(writer, prompts, settings, seeds.child("texts"))
        before = _texts(first, prompts, settings, seeds.child("before"))
        order = list(range(len(prompts)))
        if arm == MINED:
            proxy = np.array(score(RewardModel.load(played / "reward" / "model"), prompts, texts))
            order = np.argsort(-proxy, kind="stable").tolist()
        rows = [{"prompt": prompts[i].plain, "completion": texts[i], "before": before[i]} for i in order if texts[i] != before[i]]
        oracle = Oracle(world.gold, seeds=seeds.child("answers"), noise=settings.noise, temperature=0.0)
        asked = questions(rows[: settings.labelled], policy="hacked", first="first")
        answered = [each for query in asked for each in oracle.answer(query).comparisons(query)]
        return {"prompt, left, right, p_left": [[c.prompt.plain, c.left, c.right, c.p_left] for c in answered]}

    [rows] = kept(path, ask).values()
    return [Comparison(Prompt(prompt), left, right, p_left=p_left) for prompt, left, right, p_left in rows]


def _texts(policy: Path, prompts: Sequence[Prompt], settings: Settings, seeds: Seeds) -> list[str]:
    """One text of a policy for each prompt."""
    groups = generate_samples(load_policy(policy), prompts, n=1, seeds=seeds, settings=settings.ppo.sampling)
    return [group[0].text for group in groups]
