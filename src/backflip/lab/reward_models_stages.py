"""The work of `reward-models`: base models, completions, one reward model after another, and measuring.

    SEED/base/SIZE/          pretraining            SEED/fits/NAME/            the run that fits a reward model, or an ensemble
    SEED/pools.json          completions            SEED/measured/NAME.json    what was measured of it

Every stage is a run that can be resumed, or a file that is there whole or not at all.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from backflip.lab.reward_models_data import COMPARING, RANKING, RATING, Crowd, Pool, games, pairs, rankings, spoilt, truth
from backflip.lab.reward_models_settings import Settings
from backflip.lab.stages import kept
from backflip.maths.ratings import best_of_n
from backflip.policies.loading import load_policy
from backflip.records import Comparison, Prompt, Query
from backflip.rewards.ensemble import Combine, Ensemble, combined, load_reward
from backflip.rewards.learned import RewardModel
from backflip.rollout.local import generate_samples
from backflip.rounds.stages import supervised, untrained
from backflip.runs import Run
from backflip.runs.atomic import once
from backflip.seeds import Seeds
from backflip.settings import Reward
from backflip.train.comparisons import RewardReport, split_questions
from backflip.train.fitting import fit
from backflip.train.reward import measure
from backflip.train.reward_run import body_of
from backflip.train.sft import encode_demonstrations
from backflip.worlds.reviews import Reviews

RULES: tuple[Combine, ...] = ("mean", "worst", "uncertainty")


@dataclass
class Bench:
    """One seed's base models, texts and people."""

    folder: Path
    settings: Settings
    seeds: Seeds
    quiet: bool

    def __post_init__(self) -> None:
        self.world = Reviews()
        self.crowd = Crowd(self.world, self.settings.people, self.seeds.child("people"))

    def base(self, size: str) -> Path:
        """A language model of that size, pretrained on reviews; all read the same ones with one tokenizer."""
        rows = self.world.demonstrations(self.settings.documents, self.seeds.child("documents"))
        return supervised(
            self.folder / "base" / size, self.settings.pretraining(size),
            lambda: untrained(self.settings.tiny(size), rows, self.seeds.child("base", size)),
            lambda policy: encode_demonstrations(policy, rows, self.settings.pretrain),
            seeds=self.seeds.child("pretraining", size), quiet=self.quiet,
        )  # fmt: skip

    @cached_property
    def pools(self) -> dict[str, list[Pool]]:
        """Different completions by the smallest base model: of training prompts, of test prompts, and many of a few of those."""
        s = self.settings

        def draw() -> dict[str, Any]:
            wanted = {
                "train": (self.world.prompts(s.prompts, self.seeds.child("train")), s.samples),
                "test": (self.world.prompts(s.test_prompts, self.seeds.child("test"), "test"), 4),
                "best": (self.world.prompts(s.best_prompts, self.seeds.child("best"), "test"), s.best_of),
            }
            policy = load_policy(self.base(s.sizes[0]))
            found = {}
            for name, (prompts, n) in wanted.items():
                groups = generate_samples(policy, prompts, n=n, seeds=self.seeds.child("texts", name), settings=s.sampling)
                found[name] = [
                    {"prompt": p.text, "texts": [x.text for x in g] if name == "best" else list(dict.fromkeys(x.text for x in g))}
                    for p, g in zip(prompts, groups, strict=True)
                ]
            return found

        rows = kept(self.folder / "pools.json", draw)
        return {name: [Pool(Prompt(row["prompt"]), row["texts"]) for row in group] for name, group in rows.items()}

    @cached_property
    def test(self) -> list[Comparison]:
        """Pairs of completions of prompts that nothing learns from, as gold has them."""
        return truth(self.pools["test"], self.world.gold)

    def fitted(self, name: str, told: Sequence[Comparison], settings: Reward, size: str | None = None, keep: int = 1) -> Path:
        """Fit a reward model, or an ensemble, whose body is a base model's; returns the folder of its run."""
        folder = self.folder / "fits" / name
        with Run.open(folder, kind="reward", settings=settings, quiet=self.quiet, keep=keep) as run:
            if not run.finished:
                begin = body_of(load_policy(self.base(size or self.settings.sizes[0])), settings)
                found = fit(begin, told, settings, run, seeds=self.seeds.child("fit", name))
                once(folder / "model", found.model.save)
                run.finish({"comparisons": len(told)})
        return folder

    def measured(
        self, name: str, told: Callable[[], Sequence[Comparison]], settings: Reward, size: str | None = None
    ) -> dict[str, Any]:
        """Fit a model once and measure it on gold's pairs."""

        def found() -> dict[str, Any]:
            comparisons = told()
            model = load_reward(self.fitted(name, comparisons, settings, size) / "model")
            assert isinstance(model, RewardModel)
            weights = sum(p.numel() for p in model.model.parameters())
            return {"comparisons": len(comparisons), "parameters": weights, **_figures(measure(model, self.test))}

        return kept(self.folder / "measured" / f"{name}.json", found)


def overfitting(bench: Bench) -> dict[str, Any]:
    """Held-out accuracy and log loss twice in each pass over rankings, all pairs of one together or any pairs together.

    Both make as many updates, on as many pairs each. What is held out are other rankings by the same people.
    """
    s = bench.settings
    asked = rankings(bench.pools["train"], s.rankings, bench.seeds)
    held = bench.crowd.compare(rankings(bench.pools["test"], s.test_prompts, bench.seeds, sizes=(4,)))
    told = bench.crowd.compare(asked)
    questions = len(split_questions(told, 0.0, bench.seeds)[0])
    updates = max(1, math.ceil(questions / s.reward.batch_size))
    found: dict[str, Any] = {"rankings": len(asked), "pairs": len(told)}
    ways: list[tuple[Literal["question", "pair"], int]] = [
        ("question", s.reward.batch_size), ("pair", math.ceil(len(told) / updates)),
    ]  # fmt: skip
    for batching, size in ways:
        settings = dataclasses.replace(
            s.reward, batching=batching, batch_size=size, epochs=float(s.overfit_epochs), save_every=max(1, updates // 2),
            optim=dataclasses.replace(s.reward.optim, lr_schedule="constant"),
        )  # fmt: skip

        def curve(name: str = batching, settings: Reward = settings) -> dict[str, Any]:
            run = bench.fitted(f"curve-{name}", told, settings, s.overfit_size, keep=3 * s.overfit_epochs + 2)
            models = sorted((run / "checkpoints").glob("step-*"))
            figures = [_figures(measure(RewardModel.load(path / "reward"), held)) for path in models]
            return {"epochs": [int(p.name.removeprefix("step-")) / updates for p in models], "figures": figures}

        found[batching] = kept(bench.folder / "measured" / f"curve-{batching}.json", curve)
    return found


def scaling(bench: Bench) -> dict[str, Any]:
    """Accuracy by the number of comparisons and by the size of the model."""
    s = bench.settings
    most = int(max(*s.counts, *s.size_comparisons))

    def told(n: int) -> list[Comparison]:
        return bench.crowd.compare(pairs(bench.pools["train"], most)[:n])

    counts = [bench.measured(f"count-{int(n)}", partial(told, int(n)), s.reward) for n in s.counts]
    sizes = [
        bench.measured(f"size-{size}-{int(n)}", partial(told, int(n)), s.slower(size), size)
        for n in s.size_comparisons for size in s.sizes
    ]  # fmt: skip
    return {"counts": counts, "sizes": sizes}


def feedback(bench: Bench) -> dict[str, Any]:
    """Comparisons, rankings of four and ratings at equal time of the people; and Elo as a target at few games a text.

    At equal time there are fewer rankings than comparisons; batches are as large as it takes for all to make as many updates.
    """
    s, pools = bench.settings, bench.pools["train"]
    rated = pairs(pools, int(s.minutes / RATING / 2))
    four = rankings(pools, int(s.minutes / RANKING), bench.seeds, sizes=(4,))
    compared = pairs(pools, int(s.minutes / COMPARING))
    updates = len(compared) / s.reward.batch_size

    def even(questions: Sequence[Query], **more: Any) -> Reward:
        return dataclasses.replace(s.reward, batch_size=max(1, round(len(questions) / updates)), **more)

    raw, own = even(rated, loss="regression"), even(rated, loss="regression", ratings="annotator")
    by_kind = {
        "comparisons": bench.measured("comparisons", lambda: bench.crowd.compare(compared), s.reward),
        "rankings of four": bench.measured("even-rankings", lambda: bench.crowd.compare(four), even(four)),
        "raw ratings": bench.measured("even-raw-ratings", lambda: bench.crowd.rate(rated), raw),
        "ratings on each person's scale": bench.measured("even-own-ratings", lambda: bench.crowd.rate(rated), own),
    }
    elo = []
    for each in map(int, s.games):
        played = games(pools[: s.game_prompts], each, bench.seeds)
        elo.append(
            {
                "games": each,
                "bradley-terry": bench.measured(f"games-{each}-bt", partial(bench.crowd.compare, played), s.reward),
                "elo": bench.measured(
                    f"games-{each}-elo", partial(bench.crowd.compare, played), dataclasses.replace(s.reward, loss="elo")
                ),
            }
        )
    return {"equal time": by_kind, "elo": elo}


def ensembles(bench: Bench) -> dict[str, Any]:
    """Gold of the best of n by one model, and by ensembles, with the people's labels and with a share of them turned round."""
    s = bench.settings
    told = bench.crowd.compare(pairs(bench.pools["train"], s.proxy_comparisons))

    def curves(name: str, comparisons: Sequence[Comparison]) -> dict[str, Any]:
        model = load_reward(bench.fitted(f"ensemble-{name}", comparisons, s.with_members()) / "model")
        assert isinstance(model, Ensemble)
        ns = [2**i for i in range(int(math.log2(s.best_of)) + 1)]
        gold: dict[str, list[list[float]]] = {}
        for pool in bench.pools["best"]:
            true = [bench.world.gold(pool.prompt, text) for text in pool.texts]
            scores_KB = model.scores([pool.prompt] * len(pool.texts), pool.texts)
            proxies = {rule: [combined(scores_KB, rule, s.uncertainty).tolist()] for rule in RULES} | {
                "single": scores_KB.tolist()
            }
            for rule, several in proxies.items():
                rows = [[best_of_n(proxy, true, n) for n in ns] for proxy in several]
                gold.setdefault(rule, []).append([sum(column) / len(column) for column in zip(*rows, strict=True)])
        means = {rule: [sum(column) / len(column) for column in zip(*rows, strict=True)] for rule, rows in gold.items()}
        held = [_figures(measure(member, bench.test))["accuracy"] for member in model.members]
        return {"n": ns, "gold": means, "accuracy of a member": sum(held) / len(held)}

    noisy = spoilt(told, s.label_noise, bench.seeds)
    return {
        name: kept(bench.folder / "measured" / f"ensemble-{name}.json", partial(curves, name, comparisons))
        for name, comparisons in (("as labelled", told), ("with label noise", noisy))
    }


def _figures(report: RewardReport) -> dict[str, float]:
    return {"accuracy": report.accuracy, "log loss": report.log_loss, "n": report.n}
