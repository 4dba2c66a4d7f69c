"""The world of programs: a noisy corpus of tasks with somebody's programs, and tasks to solve."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Literal

from backflip.records import Prompt
from backflip.seeds import Seeds
from backflip.worlds.programs.authors import Habits, write
from backflip.worlds.programs.tasks import Task, draw_task

Split = Literal["train", "test"]
# One task in this many is kept for testing.
TEST_SHARE = 5


class Programs:
    """Tasks whose planted program has one to `longest` operations, each length equally often.

    `seed` decides which tasks are kept for testing; which are drawn is decided by the seeds given to each call. The same call
    gives the same tasks, and a longer call begins with a shorter one's.
    """

    def __init__(self, seed: int = 0, *, longest: int = 3) -> None:
        self.longest = longest
        self._split_seeds = Seeds(seed)

    def corpus(self, n: int, seeds: Seeds, *, habits: Habits | None = None, asked: float = 0.3) -> list[tuple[Prompt, str]]:
        """n tasks of the training side, each with a program that somebody wrote; a share `asked` of the prompts asks not to
        cheat."""
        habits = habits or Habits()
        rng = random.Random(seeds.integer("programs", "corpus"))
        tasks = self._tasks(rng, "train", self.levels)
        rows = []
        for _ in range(n):
            task, asks = next(tasks), rng.random() < asked
            rows.append((task.prompt(asked=asks), write(task, habits, rng, asked=asks)))
        return rows

    def prompts(
        self, n: int, seeds: Seeds, split: Split = "train", *, levels: Sequence[int] | None = None, asked: bool = False
    ) -> list[Prompt]:
        """n tasks, of these `levels` (default: all); those of split "test" occur in no corpus and among no training tasks.

        The tests are the columns `visible` and `hidden`, which reward functions receive by name.
        """
        rng = random.Random(seeds.integer("programs", "prompts", split))
        tasks = self._tasks(rng, split, levels or self.levels)
        return [next(tasks).prompt(asked=asked) for _ in range(n)]

    @property
    def levels(self) -> Sequence[int]:
        """How many operations a planted program may have."""
        return range(1, self.longest + 1)

    def split_of(self, task: Task) -> Split:
        """Which side of the split a task is on: a hash of its visible tests."""
        return "test" if self._split_seeds.integer("split", task.text) % TEST_SHARE == 0 else "train"

    def _tasks(self, rng: random.Random, split: Split, levels: Sequence[int]) -> Iterator[Task]:
        while True:
            task = draw_task(rng.choice(levels), rng, self.longest)
            if self.split_of(task) == split:
                yield task
