"""The work of `guard`: a policy, comparisons of its samples, judges, proxies of every size, and the runs against them.

SEED/policy/          SEED/comparisons.json   SEED/judgeK/   SEED/taughtK/   SEED/bodyW/    what models of width W start from
SEED/proxyW/          SEED/W-KIND/            one run, with its looks
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from backflip.feedback.labelers import Oracle, opinions
from backflip.jobs import run_reward
from backflip.lab.guard_recorder import Gold, Recorder, Seen, read
from backflip.lab.stages import improved
from backflip.monitor.asking import Ask
from backflip.monitor.corruptions import spoilt_pairs
from backflip.policies.language import LanguagePolicy
from backflip.policies.loading import load_policy
from backflip.records import Comparison, Prompt
from backflip.rewards.learned import RewardModel
from backflip.runs import Run
from backflip.seeds import Seeds
from backflip.settings import Online, Reward, Sampling, Watch
from backflip.train.guarding import Watching
from backflip.train.online import improve
from backflip.worlds.reviews import Reviews


def reward_of(
    settings: Reward, sampling: Sampling, folder: Path, body: Path, comparisons: Sequence[Comparison], seeds: Seeds, quiet: bool
) -> tuple[Path, float]:  # fmt: skip
    """A reward model of those comparisons; its folder and its accuracy on those held out."""
    with Run.open(folder, kind="reward", settings=settings, quiet=quiet) as run:
        if not run.finished:
            run.finish(run_reward(load_policy(body), comparisons, settings, sampling, run, seeds))
    return folder / "model", float(json.loads((folder / "result.json").read_text())["accuracy"])


def taught(comparisons: Sequence[Comparison], seeds: Seeds) -> list[Comparison]:
    """Comparisons, and for each of them its left text against the same text spoilt, about which nobody was asked."""
    spoilt = spoilt_pairs([c.prompt for c in comparisons], [c.left for c in comparisons], seeds)
    return [*comparisons, *spoilt]


def people(noise: float, seeds: Seeds) -> Ask:
    """Somebody who knows gold, answers the share `noise` of the questions blindly, and says nothing but which text is better."""
    return partial(opinions, Oracle(Reviews().gold, seeds=seeds, noise=noise, temperature=0.0))


def watched_run(
    folder: Path, policy: Path, proxy: Path | None, judges: Mapping[str, Path], online: Online, watch: Watch, seeds: Seeds,
    quiet: bool, recorder: Callable[[Path, Gold], Recorder] = Recorder, on: Sequence[Prompt] | None = None,
) -> list[Seen]:  # fmt: skip
    """One run, to its end unless `recorder` makes one that stops it, without a proxy against gold itself; every look of it, gold
    beside.

    It is looked at `on` those prompts, if none are given on different ones that no run learns from.
    """
    world = Reviews()

    def work(start: LanguagePolicy, run: Run) -> dict[str, float]:
        prompts = world.prompts(online.steps * online.batch_size, seeds.child("prompts"))
        watching = Watching(
            guard=recorder(folder / "looks", world.gold_reward), prompts=on or _different(world, watch.prompts, seeds),
            every=watch.every, vectors=watch.vectors,
            judges={name: RewardModel.load(judge) for name, judge in judges.items()},
        )  # fmt: skip
        reward = world.gold_reward if proxy is None else RewardModel.load(proxy)
        return improve(start, prompts, reward, online, run, seeds=seeds, watching=watching)

    improved(folder, policy, online, work, kind="guard", quiet=quiet)
    return read(folder / "looks")


def _different(world: Reviews, n: int, seeds: Seeds) -> list[Prompt]:
    """n prompts that no run learns from, each once as long as the world has so many."""
    drawn = world.prompts(8 * n, seeds.child("fresh"), "test")
    found = list({prompt.id: prompt for prompt in drawn}.values())
    return [*found, *drawn][:n]
