"""Tables as Markdown, as they stand in the documentation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with its heading, and a blank line after it.

    >>> table(["a", "b"], [["1", "2"]])
    '| a | b |\\n|---|---|\\n| 1 | 2 |\\n'
    """
    lines = [f"| {' | '.join(row)} |" for row in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:], ""])


def signed(value: float, decimals: int = 0) -> str:
    """A number with its sign, a true minus among them; what rounds to 0 is +0."""
    return f"{round(value, decimals) + 0.0:+.{decimals}f}".replace("-", "−")
