"""Environments by name, for the command line and YAML.

calculator                      one of `BUILT_IN`
guess(guesses=5, cost=0.05)     with options
game.py:Game                    a class in a file, or a function that makes an environment
my_package.games:Game           the same in a module
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable

from backflip.envs.calculator import Calculator
from backflip.envs.guessing import GuessingGame
from backflip.envs.text import MakeEnvironment, TextEnvironment
from backflip.errors import ConfigError
from backflip.rewards.naming import load_function, parse_spec

BUILT_IN: dict[str, Callable[..., TextEnvironment]] = {"calculator": Calculator, "guess": GuessingGame}


def find_environment(spec: str) -> MakeEnvironment:
    """What makes the environment that `spec` names, one for each episode. Raises ConfigError: an unknown name (with the nearest
    one), wrong options, a file or class that is not there, or something that is no environment."""
    asked = parse_spec(spec)
    if asked.weight != 1.0:
        raise ConfigError(f"an environment has no weight, and {spec!r} gives it one; leave {asked.weight:g} out")
    if asked.what in BUILT_IN:
        factory = BUILT_IN[asked.what]
    elif ":" in asked.what:
        factory = load_function(asked.what)
    else:
        near = difflib.get_close_matches(asked.what, BUILT_IN, n=1, cutoff=0.5)
        hint = f"; is {near[0]!r} meant?" if near else ""
        raise ConfigError(
            f"there is no environment {asked.what!r}{hint} (built in: {', '.join(BUILT_IN)}; or file.py:Class, module:Class)"
        )
    make = functools.partial(factory, **(asked.options or {}))
    try:
        inspect.signature(make).bind()
        made = make()
    except (TypeError, ValueError) as problem:
        raise ConfigError(f"environment {spec!r} cannot be made: {problem}") from problem
    lacking = [name for name in ("stops", "reset", "step") if not hasattr(made, name)]
    if lacking:
        raise ConfigError(f"{spec!r} is no environment: it has no {' and no '.join(lacking)}")
    return make
