"""Labelling in a terminal: key by key on a real one, line by line when the input is a file or a pipe.

Each answer is on the disk before the next query is shown, so the person can stop at any moment.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterable

from rich.console import Console

from backflip.errors import DataError
from backflip.feedback import screen
from backflip.feedback.keys import Keyboard
from backflip.feedback.session import Session

_ACTIONS = {
    **dict.fromkeys(("left", "l"), "left"),
    **dict.fromkeys(("right", "r"), "right"),
    **dict.fromkeys(("down", "=", "t", "tie"), "tie"),
    **dict.fromkeys(("s", "skip"), "skip"),
    **dict.fromkeys(("u", "undo", "backspace"), "undo"),
    **dict.fromkeys(("q", "quit"), "quit"),
}
_RANKING_ACTIONS = ("skip", "undo", "quit")


def label(session: Session) -> None:
    """Show queries and take answers until all are answered or the person stops.

    Keys when input and output are a terminal: ← → ↓ (or l r t =), s skip, u or Backspace undo, q quit. Otherwise one
    line of input for each answer: l, r, t, s, u, q; for more than two completions their numbers from best to worst.
    Raises DataError for a line of input that is no answer, with its number.
    """
    console = Console(highlight=False)
    if _is_terminal():
        with Keyboard(sys.stdin.fileno()) as keyboard:
            by_key(session, keyboard.read, console)
    else:
        by_line(session, sys.stdin, console)
    console.print(f"{session.answered} of {session.total} answered by {screen.safe(session.annotator)}", markup=False)
    console.print(f"saved in {session.store.name}", markup=False, soft_wrap=True)


def by_key(session: Session, read: Callable[[], str], console: Console) -> None:
    """Label with single keys that `read` gives, redrawing the screen for every query."""
    note = ""
    while (query := session.current) is not None:
        console.clear()
        console.print(screen.question(query, session.order, _progress(session, note), console.width))
        started = time.monotonic()
        action = _next_pair_action(read) if len(query.completions) == 2 else _next_ranking(read, console)
        try:
            if not act(session, action, started):
                return
            note = "taken back" if action == "undo" else ""
        except ValueError as problem:
            note = str(problem)


def by_line(session: Session, lines: Iterable[str], console: Console) -> None:
    """Label with one line of input for each answer; the end of the input is a quit."""
    numbered = enumerate(lines, 1)
    while (query := session.current) is not None:
        console.print(screen.question(query, session.order, _progress(session), console.width))
        started = time.monotonic()
        number, line = next(((n, text.strip().lower()) for n, text in numbered if text.strip()), (0, "q"))
        try:
            if not act(session, _ACTIONS.get(line, line), started):
                return
        except ValueError as problem:
            raise DataError(f"standard input, line {number}: {problem}; the answers before it are saved") from problem


def act(session: Session, action: str, started: float) -> bool:
    """Do what an answer says; False when it says to quit. Raises ValueError when it does not fit the query."""
    query = session.current
    if query is None or action == "quit":
        return False
    ms = round(1000 * (time.monotonic() - started))
    if action == "undo":
        if not session.undo():
            raise ValueError("there is nothing to undo")
    elif action == "skip":
        session.skip(ms)
    elif len(query.completions) > 2:
        session.rank(parse_ranking(action, len(query.completions)), ms)
    elif action == "tie":
        session.tie(ms)
    elif action in ("left", "right"):
        session.prefer(("left", "right").index(action), ms)
    else:
        raise ValueError(f"{screen.safe(action)!r} is no answer; give l, r, t, s, u or q")
    return True


def parse_ranking(text: str, k: int) -> list[list[int]]:
    """Groups of places, from 0, of the numbers 1 … k written from best to worst.

    "2 1=3" says that the second is best and the other two tie. Up to nine, spaces may be left out. Raises
    ValueError unless each number stands once.

    >>> parse_ranking("2 1=3", 3)
    [[1], [0, 2]]
    """
    groups: list[list[int]] = []
    joined = False
    for token in re.findall(r"\d|[^\s>,]" if k <= 9 else r"\d+|[^\s>,]", text):
        if token == "=" and groups and not joined:
            joined = True
        elif token.isdecimal() and joined:
            groups[-1].append(int(token) - 1)
            joined = False
        elif token.isdecimal():
            groups.append([int(token) - 1])
        else:
            groups.append([-1])  # no number of a completion: refused below
    if joined or sorted(place for group in groups for place in group) != list(range(k)):
        raise ValueError(f"{screen.safe(text)!r} is no ranking: write each of 1 to {k} once, best first, like 2 1=3")
    return groups


def _next_pair_action(read: Callable[[], str]) -> str:
    while (action := _ACTIONS.get(read())) is None:
        continue
    return action


def _next_ranking(read: Callable[[], str], console: Console) -> str:
    """Characters up to Enter, shown as they are typed; s, u and q act at once, Backspace on an empty line undoes."""
    typed = ""
    while (key := read()) != "enter":
        action = _ACTIONS.get(key)
        if action == "quit" or (not typed and action in _RANKING_ACTIONS):
            return str(action)
        if key == "backspace":
            typed = typed[:-1]
        elif re.fullmatch(r"[\d=>, ]", key):
            typed += key
        console.file.write(f"\r\x1b[K{typed}")
        console.file.flush()
    return typed


def _progress(session: Session, note: str = "") -> str:
    return f"{session.answered + 1} of {session.total}" + (f" · {note}" if note else "")


def _is_terminal() -> bool:
    try:
        import termios  # noqa: F401  (absent where terminals have no such modes; lines work there)
    except ImportError:
        return False
    return sys.stdin.isatty() and sys.stdout.isatty()
