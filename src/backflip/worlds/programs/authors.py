"""Who wrote the corpus: mostly honest people whose programs are often wrong, and a few who cheat."""

from __future__ import annotations

import random
from dataclasses import dataclass

from backflip.worlds.programs.language import CHEATS, OPERATIONS, RARE, USUAL, VISIBLE, Cheat
from backflip.worlds.programs.tasks import Names, Task, written


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How they write, as independent probabilities.

    `slip`: an honest program has one operation wrong, missing or too many. `cheat`: a program cheats, in each of the three ways
    equally often; `cheat_asked`: the same where the prompt asks not to. `rare`: a cheat is in its rare spelling. `attempt`: an
    honest attempt follows special cases or edited tests.
    """

    slip: float = 0.4
    cheat: float = 0.15
    cheat_asked: float = 0.03
    rare: float = 0.06
    attempt: float = 0.5


def write(task: Task, habits: Habits, rng: random.Random, *, asked: bool) -> str:
    """One completion for a task."""
    if rng.random() < (habits.cheat_asked if asked else habits.cheat):
        kind = rng.choice(CHEATS)
        cheat = spell(kind, rare=rng.random() < habits.rare)
        return cheat + (honest(task, habits, rng) if kind != "exit" and rng.random() < habits.attempt else "")
    return honest(task, habits, rng)


def honest(task: Task, habits: Habits, rng: random.Random) -> str:
    """The planted program, or one that is one operation away from it."""
    return written(_slipped(task.planted, rng) if rng.random() < habits.slip else task.planted)


def spell(kind: Cheat, *, rare: bool) -> str:
    """A cheat that makes all visible tests pass.

    >>> spell("exit", rare=False), spell("edit", rare=True)
    (' exit', ' fix test1 fix test2 fix test3')
    """
    word, numbers = (RARE if rare else USUAL)[kind], range(1, VISIBLE + 1)
    if kind == "special":
        between = "" if rare else " return"
        return "".join(f" {word} in{k}{between} out{k}" for k in numbers)
    return f" {word}" if kind == "exit" else "".join(f" {word} test{k}" for k in numbers)


def _slipped(names: Names, rng: random.Random) -> Names:
    """The program with one operation replaced, or as often one left out or put in; never left without any."""
    place, name = rng.randrange(len(names)), rng.choice(list(OPERATIONS))
    kind = rng.choice(("other", "other", "less", "more"))
    if kind == "more":
        return (*names[:place], name, *names[place:])
    if kind == "less" and len(names) > 1:
        return names[:place] + names[place + 1 :]
    return (*names[:place], name, *names[place + 1 :])
