"""The guessing game: its answers, its end, and that halving wins in the least number of guesses."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backflip.envs.guessing import GuessingGame, games
from backflip.errors import DataError
from backflip.records import Prompt
from backflip.seeds import Seeds


def begun(secret: int, **options: float) -> GuessingGame:
    game = GuessingGame(**options)  # type: ignore[arg-type]
    assert game.reset(Prompt("Guess.", {"secret": str(secret)})) == ""
    return game


def test_a_game_by_hand() -> None:
    game = begun(7, cost=0.1)
    assert game.step("maybe 3?\n") == ("higher\n", -0.1, False)
    assert game.step("9\n") == ("lower\n", -0.1, False)
    assert game.step("what now\n") == ("say a number\n", -0.1, False)
    assert game.step("it is 7\n") == ("yes\n", 1.0, True)


def test_the_guesses_run_out() -> None:
    game = begun(1, guesses=2)
    assert [game.step("5\n").done for _ in range(2)] == [False, True]


@given(st.integers(1, 64), st.integers(1, 64))
def test_halving_what_is_left_wins_in_time(high: int, secret: int) -> None:
    secret = min(secret, high)
    game, low, asked, done = begun(secret, guesses=100), 1, 0, False
    while not done:
        guess = (low + high) // 2
        answer, reward, done = game.step(f"{guess}\n")
        asked += 1
        low, high = (guess + 1, high) if answer == "higher\n" else (low, guess - 1)
    assert reward == 1.0
    assert asked <= math.floor(math.log2(64)) + 1


def test_games_are_drawn_evenly_and_again_the_same() -> None:
    drawn = [int(p.columns["secret"]) for p in games(2000, Seeds(0), low=1, high=4)]
    assert {n: drawn.count(n) > 400 for n in (1, 2, 3, 4)} == dict.fromkeys((1, 2, 3, 4), True)
    assert games(5, Seeds(3)) == games(5, Seeds(3)) != games(5, Seeds(4))


def test_a_prompt_without_a_secret_is_named() -> None:
    with pytest.raises(DataError, match="'Guess it'"):
        GuessingGame().reset(Prompt("Guess it"))
