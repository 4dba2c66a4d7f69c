"""Is what a program returned what was expected? Decided on canonical JSON, outside the sandbox."""

from __future__ import annotations

import math
from typing import Any

from backflip.sandbox.inside import text


def same(expected: Any, got: Any, *, float_tolerance: float = 0.0, tuple_is_list: bool = False) -> bool:
    """Whether two values in canonical JSON (see `inside.canonical`) are the same value of the same types.

    True, 1 and 1.0 are three values; -0.0 is not 0.0, and NaN is NaN. With a `float_tolerance` t, two floats x (expected) and y
    are the same when |x − y| ≤ t·max(1, |x|); members of sets and keys stay exact. `tuple_is_list` is for expectations that
    come from JSON, which has no tuples.
    """
    if float_tolerance == 0.0 and not tuple_is_list:
        return text(expected) == text(got)
    if not (_tagged(expected) and _tagged(got)):
        return text(expected) == text(got)
    (name, content), (other, theirs) = expected, got
    if tuple_is_list:
        name, other = (n.replace("tuple", "list") if isinstance(n, str) else n for n in (name, other))
    if name != other:
        return False
    if name == "float":
        return _close(content, theirs, float_tolerance)
    if name not in ("list", "tuple", "dict"):
        return text(content) == text(theirs)
    if not isinstance(theirs, list) or len(content) != len(theirs):
        return False

    def alike(one: Any, another: Any) -> bool:
        return same(one, another, float_tolerance=float_tolerance, tuple_is_list=tuple_is_list)

    if name == "dict":
        pairs = zip(content, theirs, strict=True)
        return all(_tagged(pair) and pair[0] == key and alike(value, pair[1]) for (key, value), pair in pairs)
    return all(alike(one, another) for one, another in zip(content, theirs, strict=True))


def same_text(expected: str, got: str) -> bool:
    """Whether two texts have the same lines, white space at the end of lines and of the text aside."""
    return _lines(expected) == _lines(got)


def _lines(text: str) -> list[str]:
    lines = [line.rstrip() for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _tagged(plain: Any) -> bool:
    return isinstance(plain, list) and len(plain) == 2


def _close(expected: str, got: Any, tolerance: float) -> bool:
    if got == expected:
        return True
    try:
        x, y = float.fromhex(expected), float.fromhex(got)
    except (TypeError, ValueError, OverflowError):
        return False
    if not (math.isfinite(x) and math.isfinite(y)):
        return False
    return abs(x - y) <= tolerance * max(1.0, abs(x))
