"""The work of `active-loop`: portions of comparisons, and legs of training between them.

SEED/policy/             SEED/ARM/askedL.json    the portion before leg L
SEED/ARM/rewardL/        SEED/ARM/legL/          SEED/ARM/measured.json    what the last policy writes
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backflip.feedback.labelers import Oracle
from backflip.lab.active_loop_figures import ages, plan
from backflip.lab.active_loop_settings import Arm, Settings
from backflip.lab.guard_stages import reward_of
from backflip.lab.stages import columns, improved, kept
from backflip.monitor.signals import label_accuracy
from backflip.policies.language import LanguagePolicy
from backflip.policies.loading import load_policy
from backflip.records import Comparison, Prompt, Query, Sample
from backflip.rewards.ensemble import load_reward
from backflip.rewards.protocol import score
from backflip.rollout.local import generate_samples
from backflip.rounds.asking import draw
from backflip.runs import Run
from backflip.runs.logs import read_object
from backflip.seeds import Seeds
from backflip.train.online import improve
from backflip.worlds.reviews import Reviews

CURVES = {"gold": "objective/gold", "proxy": "objective/scores", "kl": "objective/kl"}
SHOWN = 3
"""Texts of each last policy that the report shows."""


def gone(folder: Path, first: Path, arm: Arm, settings: Settings, seeds: Seeds, quiet: bool) -> dict[str, Any]:
    """One arm from its first question to its last policy: how old its comparisons were, leg by leg gold, proxy and KL of what it
    trained on, and of its last policy gold and how right the last reward model is about it.

    Arms share prompts and random numbers.
    """
    asked, policies = plan(arm, settings.legs), [first]
    known: list[Comparison] = []
    counts: dict[int, int] = {}
    lines: dict[str, list[float]] = {name: [] for name in CURVES}
    for leg in range(settings.legs):
        if leg in asked:
            judge = folder / f"reward{max(counts)}" / "model" if counts else None
            new = portion(folder / f"asked{leg}.json", policies[asked[leg]], leg, arm, known, judge, settings, seeds)
            known, counts[leg] = [*known, *new], len(new)
            proxy, _ = reward_of(
                settings.reward, settings.ppo.sampling, folder / f"reward{leg}", first, known, seeds.child("reward"), quiet
            )
        place = folder / f"leg{leg}"
        policies.append(trained(place, first, policies[-1], proxy, leg, settings, seeds.child("leg", leg), quiet))
        for name, values in columns(place, CURVES).items():
            lines[name].append(sum(values) / len(values))
    found = measured(folder / "measured.json", policies[-1], proxy, settings, seeds.child("measured"))
    return found | {"ages": ages(asked, counts, settings.legs), "comparisons": len(known), "legs": lines, "kl": lines["kl"][-1]}


def portion(
    path: Path, policy: Path, leg: int, arm: Arm, known: Sequence[Comparison], judge: Path | None, settings: Settings,
    seeds: Seeds,
) -> list[Comparison]:  # fmt: skip
    """Comparisons of what a policy writes, chosen by the arm's rule with the help of its last reward model; kept in `path`."""

    def ask() -> dict[str, Any]:
        world = Reviews()

        def sample(_: str, prompts: Sequence[Prompt], n: int, key: str) -> list[list[Sample]]:
            return generate_samples(
                load_policy(policy), prompts, n=n, seeds=seeds.child(key, leg), settings=settings.ppo.sampling
            )  # fmt: skip

        before = [Query(c.prompt, (c.left, c.right)) for c in known]
        reward = load_reward(judge) if judge is not None and arm.ask != "random" else None
        prompts = world.prompts(settings.comparisons * settings.candidates, seeds.child("asked"))
        drawn = draw(
            settings.asking(arm), leg + 1, policy.name, (), prompts, sample, seeds.child("asking"), asked=before, reward=reward
        )  # fmt: skip
        oracle = Oracle(world.gold, seeds=seeds.child("answers"), noise=settings.noise, temperature=0.0)
        answered = [each for query in drawn.queries for each in oracle.answer(query).comparisons(query)]
        return {"prompt, left, right, p_left": [[c.prompt.plain, c.left, c.right, c.p_left] for c in answered]}

    [rows] = kept(path, ask).values()
    return [Comparison(Prompt(prompt), left, right, p_left=p_left) for prompt, left, right, p_left in rows]


def trained(
    folder: Path, first: Path, start: Path, proxy: Path, leg: int, settings: Settings, seeds: Seeds, quiet: bool
) -> Path:  # fmt: skip
    """One leg: the policy as it is, improved by so many steps, held near the first one. β goes on from the leg before, for a
    controller that starts anew would first have to find it again."""
    world = Reviews()
    before = folder.parent / f"leg{leg - 1}" / "result.json"

    def work(policy: LanguagePolicy, run: Run) -> Mapping[str, float]:
        prompts = world.prompts(settings.ppo.steps * settings.ppo.batch_size, seeds.child("prompts"))
        return improve(
            policy, prompts, load_reward(proxy), settings.ppo, run, seeds=seeds, gold=world.gold_reward,
            reference=load_policy(first).frozen_copy(), kl_coef=float(read_object(before)["kl_coef"]) if leg else None,
        )  # fmt: skip

    return improved(folder, start, settings.ppo, work, kind="active-loop", quiet=quiet)


def measured(path: Path, policy: Path, proxy: Path, settings: Settings, seeds: Seeds) -> dict[str, Any]:
    """What a policy writes for prompts nobody trained on, two texts each: gold, and how often a reward model says rightly which
    of the two has more of it; kept in `path`."""

    def measure() -> dict[str, Any]:
        world, reward = Reviews(), load_reward(proxy)
        prompts = world.prompts(settings.tested, seeds.child("prompts"), "test")
        groups = generate_samples(
            load_policy(policy), prompts, n=2, seeds=seeds.child("texts"), settings=settings.ppo.sampling
        )  # fmt: skip
        texts = [[group[side].text for group in groups] for side in (0, 1)]
        gold = [[world.gold(p, text) for p, text in zip(prompts, side, strict=True)] for side in texts]
        scores = [score(reward, prompts, side) for side in texts]
        # Equal gold is a tie, which `label_accuracy` leaves out.
        p_left = [0.5 if a == b else float(a > b) for a, b in zip(*gold, strict=True)]
        right = label_accuracy(scores[0], scores[1], p_left)
        return {
            "gold": sum(map(sum, gold)) / (2 * len(prompts)), "proxy": sum(map(sum, scores)) / (2 * len(prompts)),
            "accuracy": 0.5 if right.value is None else right.value,
            "words": sum(len(text.split()) for side in texts for text in side) / (2 * len(prompts)),
            "texts": [
                {"prompt": p.plain, "text": t, "gold": g, "proxy": s}
                for p, t, g, s in zip(prompts[:SHOWN], texts[0], gold[0], scores[0], strict=False)
            ],
        }  # fmt: skip

    return kept(path, measure)
