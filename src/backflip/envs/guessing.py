"""A guessing game: a number is thought of, and every guess is answered with higher, lower or yes.

The best play halves what is left: a policy that learns it asks ⌈log2 n⌉ times at most for one of n numbers.
"""

from __future__ import annotations

from backflip.envs.text import Step
from backflip.errors import DataError
from backflip.records import Prompt
from backflip.rewards.numerals import last_number
from backflip.seeds import Seeds


class GuessingGame:
    """The prompt's column "secret" holds the number; the last number in an action is the guess.

    The reward is 1 for the right number, less `cost` for every guess that is not; after `guesses` of them the episode ends.
    Raises DataError for a prompt without a secret that is a whole number.
    """

    stops: tuple[str, ...] = ("\n",)

    def __init__(self, *, guesses: int = 8, cost: float = 0.1) -> None:
        self.guesses, self.cost = guesses, cost
        self.secret = 0

    def reset(self, prompt: Prompt) -> str:
        """Think of the number."""
        given = prompt.columns.get("secret")
        try:
            self.secret = int(str(given))
        except ValueError:
            raise DataError(
                f"the guessing game needs a whole number in the column 'secret', and {prompt.plain[:60]!r} has {given!r} there"
            ) from None
        self.left = self.guesses
        return ""

    def step(self, action: str) -> Step:
        """Answer a guess."""
        self.left -= 1
        guess = last_number(action)
        if guess == self.secret:
            return Step("yes\n", 1.0, done=True)
        answer = "say a number" if guess is None else "higher" if guess < self.secret else "lower"
        return Step(answer + "\n", -self.cost, done=self.left <= 0)


def games(n: int, seeds: Seeds, *, low: int = 1, high: int = 20) -> list[Prompt]:
    """Prompts of `n` games, the secrets drawn evenly from `low` … `high`."""
    draws = seeds.numpy("secrets").integers(low, high + 1, size=n).tolist()
    text = f"I think of a number from {low} to {high}. Guess it.\n"
    return [Prompt(text, {"secret": str(secret)}) for secret in draws]
