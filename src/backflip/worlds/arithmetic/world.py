"""The world of arithmetic: a noisy corpus of worked problems, and problems to work."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Literal

from backflip.records import Prompt
from backflip.seeds import Seeds
from backflip.worlds.arithmetic.notation import OPEN, PLACES, SECOND, Problem, Task, abroad
from backflip.worlds.arithmetic.traces import FAULTLESS, ONE, Noise, Styles, Tongues, write

Split = Literal["train", "test"]
# One problem in this many is kept for testing.
TEST_SHARE = 5


class Arithmetic:
    """Sums of two numbers of equally many digits, and numbers to copy, with an exact answer to each.

    Sums need a scratchpad: done in the head they go wrong at some carry. Copying does not: a direct copy is as likely right as
    one with any scratchpad, so a policy that writes longer there gains nothing. `seed` decides which problems are kept for
    testing; which are drawn is decided by the seeds given to each call. The same call gives the same problems, and a longer
    call begins with a shorter one's.
    """

    def __init__(self, seed: int = 0, *, digits: tuple[int, ...] = (4, 5, 6)) -> None:
        self.digits = digits
        self._split_seeds = Seeds(seed)

    def corpus(
        self, n: int, seeds: Seeds, *, styles: Styles | None = None, noise: Noise | None = None, copies: float = 0.2,
        drills: float = 0.3, tongues: Tongues = ONE,
    ) -> list[tuple[Prompt, str]]:  # fmt: skip
        """n training texts: problems worked out once each, in every style and with noise.

        A share `copies` of the problems is to copy; a share `drills` of the texts is no problem but one column of a sum, from
        which adding single digits is learned. Scratchpads and drills are in the languages of `tongues`.
        """
        styles, noise = styles or Styles(), noise or Noise()
        rng = random.Random(seeds.integer("arithmetic", "corpus"))
        rows = []
        for _ in range(n):
            if rng.random() < drills:
                rows.append(_drill(rng, tongues, max(self.digits)))
                continue
            problem = next(self._problems("copy" if rng.random() < copies else "add", rng, "train"))
            style = styles.draw(rng)
            # Of texts that have a column to take back so many that they are the share of all texts that was asked for.
            sums_with_columns = (1 - drills) * (1 - copies) * (1 - styles.direct)
            reflect = style != "direct" and problem.task == "add" and rng.random() * sums_with_columns < noise.wait
            rows.append((_prompt(problem), write(problem, style, noise, rng, reflect=reflect, tongues=tongues)))
        return rows

    def prompts(self, n: int, seeds: Seeds, split: Split = "train", task: Task = "add") -> list[Prompt]:
        """n problems; those of split "test" occur in no corpus and among no training problems of this world.

        The right answer is the column `answer`, which reward functions receive by name.
        """
        rng = random.Random(seeds.integer("arithmetic", "prompts", split, task))
        problems = self._problems(task, rng, split)
        return [_prompt(next(problems)) for _ in range(n)]

    def worked(self, n: int, seeds: Seeds, *, tongues: Tongues = ONE) -> list[tuple[Prompt, str]]:
        """n training problems, each with a full scratchpad, a right answer and all tags: demonstrations to start from."""
        rng = random.Random(seeds.integer("arithmetic", "worked"))
        problems = self._problems("add", rng, "train")
        return [(_prompt(p), write(p, "full", FAULTLESS, rng, tongues=tongues)) for p in itertools.islice(problems, n)]

    def split_of(self, problem: Problem) -> Split:
        """Which side of the split a problem is on: a hash of its text."""
        return "test" if self._split_seeds.integer("split", problem.text) % TEST_SHARE == 0 else "train"

    def _problems(self, task: Task, rng: random.Random, split: Split) -> Iterator[Problem]:
        while True:
            digits = rng.choice(self.digits)
            numbers = tuple(rng.randrange(10 ** (digits - 1), 10**digits) for _ in range(2 if task == "add" else 1))
            problem = Problem(task, numbers, capitals=task == "copy" and rng.random() < 0.5)
            if self.split_of(problem) == split:
                yield problem


def _drill(rng: random.Random, tongues: Tongues, places: int) -> tuple[Prompt, str]:
    """The end of one column of a full scratchpad, the digits of the next, and what they add up to."""
    place, a, b, before = rng.randrange(places), rng.randrange(10), rng.randrange(10), rng.randrange(20)
    # Only the units have no column before them.
    carried = f"{before:02d}" if place else OPEN
    asked, said = f"{PLACES[place]}{a}{SECOND[place]}{b}", f"{a + b + (before // 10 if place else 0):02d}"
    there, here = tongues.spoken((max(place - 1, 0), place), rng)
    carried, asked, said = (
        abroad(text) if spoken else text for text, spoken in ((carried, there and place > 0), (asked, here), (said, here))
    )
    return Prompt(carried + asked), said


def _prompt(problem: Problem) -> Prompt:
    return Prompt(problem.text, {"answer": problem.answer})
