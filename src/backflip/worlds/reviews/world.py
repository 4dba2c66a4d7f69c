"""The world of reviews: its corpus, demonstrations and prompts, and the gold utility behind its annotators."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from backflip.records import Prompt
from backflip.seeds import Seeds
from backflip.worlds.reviews.gold import Factors, Weights, measure, utility
from backflip.worlds.reviews.grammar import DEMONSTRATIONS, Facts, Rates, draw_facts, draw_review, read_prompt, write

Split = Literal["train", "test"]
# One combination of facts in this many is kept for testing.
TEST_SHARE = 5


class Reviews:
    """Short reviews of films, books, restaurants and hotels, whose every latent factor is known.

    A prompt states a name and a city; a completion reviews the thing in two to four sentences (see
    `grammar`). `seed` decides which combinations of facts are kept for testing; which texts are drawn is decided by
    the seeds given to each call. The same call gives the same texts, and a longer call begins with a shorter one's.
    """

    def __init__(self, seed: int = 0) -> None:
        self._split_seeds = Seeds(seed)

    def corpus(self, n: int, seeds: Seeds) -> list[str]:
        """n raw documents, prompt and completion in one string, of every style.

        Each document has its own rates: whether it praises, describes, stays on topic, has its facts right and is
        complete are drawn independently over wide ranges.
        """
        rng = random.Random(seeds.integer("reviews", "corpus"))
        return [f.text + write(draw_review(f, _any_rates(rng), rng)) for f in self._facts(n, rng, "train")]

    def demonstrations(self, n: int, seeds: Seeds) -> list[tuple[Prompt, str]]:
        """n prompts with a decent review each: mostly on topic and mostly right.

        Each has its own share of praise, drawn uniformly: some are all warm, some all cold.
        """
        rng = random.Random(seeds.integer("reviews", "demonstrations"))
        return [(Prompt(f.text), write(draw_review(f, _decent_rates(rng), rng))) for f in self._facts(n, rng, "train")]

    def prompts(self, n: int, seeds: Seeds, split: Split = "train") -> list[Prompt]:
        """n prompts; those of split "test" occur in no corpus, demonstration or training prompt of this world.

        They are drawn with replacement from the combinations of facts, some 1,800 for training and 460 for testing.
        """
        rng = random.Random(seeds.integer("reviews", "prompts", split))
        return [Prompt(f.text) for f in self._facts(n, rng, split)]

    def split_of(self, prompt: Prompt) -> Split:
        """Which side of the split a prompt is on: a hash of its facts."""
        return "test" if self._split_seeds.integer("split", prompt.plain) % TEST_SHARE == 0 else "train"

    def measure(self, prompt: Prompt, completion: str) -> Factors:
        """What is true of `completion` as a review of what `prompt` states, for any two texts."""
        return measure(read_prompt(prompt.plain), completion)

    def gold(self, prompt: Prompt, completion: str) -> float:
        """The hidden utility, on average 0 on demonstrations and finite for any text; see `gold.utility`."""
        return self.judge(prompt, completion, Weights())

    def gold_reward(self, prompts: Sequence[Any], completions: Sequence[str], **columns: list[Any]) -> list[float]:
        """Gold as a reward function."""
        return [self.gold(Prompt(p), text) for p, text in zip(prompts, completions, strict=True)]

    def judge(self, prompt: Prompt, completion: str, weights: Weights) -> float:
        """The utility to somebody who weighs the factors differently from gold."""
        return utility(self.measure(prompt, completion), weights)

    def _facts(self, n: int, rng: random.Random, split: Split) -> Iterator[Facts]:
        while n > 0:
            facts = draw_facts(rng)
            if self.split_of(Prompt(facts.text)) == split:
                n -= 1
                yield facts


def _decent_rates(rng: random.Random) -> Rates:
    return dataclasses.replace(DEMONSTRATIONS, positive=rng.random())


def _any_rates(rng: random.Random) -> Rates:
    return Rates(
        positive=rng.betavariate(0.5, 0.5),
        descriptive=rng.random(),
        on_topic=rng.uniform(0.5, 1.0),
        right=rng.uniform(0.7, 1.0),
        complete=rng.uniform(0.7, 1.0),
    )
