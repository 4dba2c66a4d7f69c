"""Calling a reward function that somebody wrote, and not believing what it returns.

The field writes them as `f(prompts, completions, **columns)`, as `f(completions, **kwargs)`, or with the columns by name:
`f(completions, answer)`. All three are called as they ask to be.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from backflip.errors import BackflipError, ConfigError, DataError, NonFiniteError, NumericsError, UserError
from backflip.rewards.spans import Process

Value = float | Process | None
AnyReward = Callable[..., Sequence[Value]]
ROUNDING = 1e-6  # of the declared range, for numbers that come from single precision


def check_signature(function: Any, name: str) -> None:
    """Raises ConfigError for what cannot be called with prompts, completions and columns."""
    if not callable(function):
        raise ConfigError(f"reward {name!r} is {type(function).__name__}, not a function f(prompts, completions, **columns)")
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
        raise ConfigError(f"reward {name!r} is a coroutine; write it as an ordinary function")
    parameters = _parameters(function)
    if parameters is None or "completions" in parameters:
        return
    kinds = [p.kind for p in parameters.values()]
    by_place = sum(kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD) for kind in kinds)
    if by_place < 2 and inspect.Parameter.VAR_POSITIONAL not in kinds:
        raise ConfigError(
            f"reward {name!r} has the signature {inspect.signature(function)}; it should be f(prompts, completions, **columns)"
        )


def call(
    function: AnyReward, name: str, prompts: list[Any], completions: list[str], columns: Mapping[str, list[Any]]
) -> list[Value]:
    """The values of a reward function, checked: one each, None or finite, within the declared `low` and `high` if it has them.

    Raises NumericsError (NonFiniteError) naming the reward, the row and the usual cause; UserError when the function raised,
    naming the first row that makes it; DataError when it needs a column that the prompts do not have.
    """
    places, keywords = _arguments(function, name, prompts, completions, columns)
    try:
        returned = function(*places, **keywords)
    except BackflipError:
        raise
    except Exception as problem:
        where = _failing_row(function, name, prompts, completions, columns)
        raise UserError(f"reward {name!r} failed{where}: {type(problem).__name__}: {problem}") from problem
    values = _as_list(returned, name)
    if len(values) != len(completions):
        raise NumericsError(
            f"reward {name!r} returned {len(values)} values for {len(completions)} completions; return one for each"
        )
    low, high = float(getattr(function, "low", -math.inf)), float(getattr(function, "high", math.inf))
    return [
        _checked(value, name, row, text, low, high) for row, (value, text) in enumerate(zip(values, completions, strict=True))
    ]


def _parameters(function: Any) -> Mapping[str, inspect.Parameter] | None:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # written in C
        return None


def _arguments(
    function: Any, name: str, prompts: list[Any], completions: list[str], columns: Mapping[str, list[Any]]
) -> tuple[list[Any], dict[str, Any]]:
    prompts, completions = list(prompts), list(completions)  # its own: what it does to them is no other part's business
    columns = {column: list(values) for column, values in columns.items()}
    parameters = _parameters(function)
    if parameters is None:
        return [prompts, completions], columns
    given = {"prompts": prompts, "completions": completions}
    named = "completions" in parameters and parameters["completions"].kind is not inspect.Parameter.POSITIONAL_ONLY
    places = [] if named else [prompts, completions]
    rest = list(parameters.values())[len(places) :]
    wanted = {**columns, **given} if named else columns
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    missing = [p.name for p in rest if p.default is p.empty and p.name not in wanted and p.kind not in several]
    if missing:
        found = ", ".join(repr(column) for column in sorted(columns)) or "none"
        raise DataError(
            f"reward {name!r} needs the column {missing[0]!r}, which the prompts do not have; their columns are {found}"
        )
    takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in rest)
    return places, wanted if takes_all else {p.name: wanted[p.name] for p in rest if p.name in wanted}


def _failing_row(
    function: AnyReward, name: str, prompts: list[Any], completions: list[str], columns: Mapping[str, list[Any]]
) -> str:
    """ " at row 3 ('…')": the first row that fails by itself; nothing when each goes well alone."""
    for row, text in enumerate(completions):
        one = {column: values[row : row + 1] for column, values in columns.items()}
        places, keywords = _arguments(function, name, prompts[row : row + 1], [text], one)
        try:
            function(*places, **keywords)
        except Exception:  # whatever it is, it is what is looked for
            return f" at row {row + 1} ({text[:60]!r})"
    return ""


def _as_list(returned: Any, name: str) -> list[Any]:
    if isinstance(returned, str | bytes | Mapping) or not hasattr(returned, "__iter__"):
        raise NumericsError(
            f"reward {name!r} returned {type(returned).__name__}; return a list with one number for each completion"
        )
    return list(returned)


def _checked(value: Any, name: str, row: int, text: str, low: float, high: float) -> Value:
    where = f"for row {row + 1} ({text[:60]!r})"
    if value is None:
        return None
    if isinstance(value, Process):
        beyond = [span for span in value.spans if span.end > len(text)]
        if beyond:
            raise NumericsError(
                f"reward {name!r} gave a span that ends at {beyond[0].end} {where}, which has {len(text)} characters; "
                "the usual cause is counting tokens or bytes instead of characters"
            )
        numbers = [value.outcome, *(span.reward for span in value.spans)]
    else:
        numbers = [value]
    for number in numbers:
        _check_finite(number, name, where)
    total = float(value)
    slack = ROUNDING * max(1.0, abs(low) if math.isfinite(low) else 0.0, abs(high) if math.isfinite(high) else 0.0)
    if not low - slack <= total <= high + slack:
        raise NumericsError(
            f"reward {name!r} is {total:g} {where}, outside its range of {low:g} to {high:g}; "
            "the usual cause is a changed scale, such as per cent for a share, or a missing clamp"
        )
    return value if isinstance(value, Process) else total


def _check_finite(value: Any, name: str, where: str) -> None:
    try:
        if isinstance(value, str | bytes):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise NumericsError(f"reward {name!r} gave {str(value)[:60]!r} {where}; a reward is a number, or None") from None
    if not math.isfinite(number):
        raise NonFiniteError(
            f"reward {name!r} is {number} {where}; a reward is finite: "
            "the usual cause is a division by the length of an empty completion, or the logarithm of 0"
        )
