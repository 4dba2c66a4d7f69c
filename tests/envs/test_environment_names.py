"""Environments by name: what is found, with which options, and what is said when there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from backflip.envs.calculator import Calculator
from backflip.envs.guessing import GuessingGame
from backflip.envs.naming import find_environment
from backflip.errors import ConfigError

GAME = """
from backflip.envs.text import Step

class Echo:
    stops = (".",)
    def __init__(self, times=1):
        self.times = times
    def reset(self, prompt):
        return ""
    def step(self, action):
        return Step(action * self.times, 1.0, True)

def nothing():
    return object()

def fails():
    raise ValueError("no board")
"""


def test_built_in_ones_and_their_options() -> None:
    game = find_environment("guess(guesses=3, cost=0.5)")()
    assert isinstance(game, GuessingGame)
    assert (game.guesses, game.cost) == (3, 0.5)
    make = find_environment("calculator")
    assert isinstance(make(), Calculator)
    assert make() is not make(), "every episode has its own"


def test_one_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "game.py").write_text(GAME)
    made = find_environment(f"{tmp_path}/game.py:Echo(times=2)")()
    assert made.step("ab") == ("abab", 1.0, True)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("calculater", "is 'calculator' meant"),
        ("chess", "built in: calculator, guess"),
        ("guess(tries=3)", "tries"),
        ("guess:0.5", "has no weight"),
        ("{folder}/game.py:Ecko", "'Echo'"),
        ("{folder}/game.py:nothing", "no stops and no reset and no step"),
        ("{folder}/game.py:fails", "no board"),
        ("{folder}/other.py:Echo", "other.py"),
    ],
)
def test_what_is_not_there_is_said(spec: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "game.py").write_text(GAME)
    with pytest.raises(ConfigError, match=said):
        find_environment(spec.replace("{folder}", str(tmp_path)))
