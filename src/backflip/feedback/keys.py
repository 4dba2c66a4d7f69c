"""Keys from a terminal: bytes to names, and the mode in which each key arrives at once.

A name is "left", "right", "down", "up", "enter", "backspace", or the character itself in lower case.
"""

from __future__ import annotations

import codecs
import os
import re
import select
import signal
from types import FrameType, TracebackType
from typing import Any, Self

from backflip.errors import Interrupted

_ESCAPE = re.compile(r"\x1b(?:\[[0-9;?]*([@-~])|O([@-~]))")  # CSI … final, or SS3 final (application mode)
_UNFINISHED = re.compile(r"\x1b(?:\[[0-9;?]*|O)?")
_ARROWS = {"A": "up", "B": "down", "C": "right", "D": "left"}
_NAMED = {"\r": "enter", "\n": "enter", "\x7f": "backspace", "\x08": "backspace"}


def decode(data: bytes) -> tuple[list[str], bytes]:
    """The keys in what a terminal sent, and the bytes at its end that are not a whole key yet.

    Control characters and escape sequences that are no arrow are passed over.

    >>> decode(b"\\x1b[Dt\\x1b[")
    (['left', 't'], b'\\x1b[')
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="ignore")
    text = decoder.decode(data)
    unfinished_character = decoder.getstate()[0]
    keys: list[str] = []
    while text:
        if found := _ESCAPE.match(text):
            keys += [_ARROWS[final] for final in (found[1] or found[2],) if final in _ARROWS]
            text = text[found.end() :]
            continue
        if _UNFINISHED.fullmatch(text):
            break
        character, text = text[0], text[1:]
        if character in _NAMED:
            keys.append(_NAMED[character])
        elif character.isprintable():
            keys.append(character.lower())
    return keys, text.encode() + unfinished_character


class Keyboard:
    """While entered, the terminal gives each key as it is pressed and shows none; afterwards it is as it was.

    Ctrl-C raises KeyboardInterrupt as ever, and SIGTERM raises Interrupted, so both leave through here.
    """

    def __init__(self, fd: int) -> None:
        self._fd, self._rest, self._keys = fd, b"", list[str]()

    def __enter__(self) -> Self:
        import termios
        import tty

        self._before: list[Any] = termios.tcgetattr(self._fd)
        self._handler = signal.signal(signal.SIGTERM, _stopped)
        tty.setcbreak(self._fd, termios.TCSADRAIN)  # keeps what was typed while we started
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        import termios

        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)
        signal.signal(signal.SIGTERM, self._handler)

    def read(self) -> str:
        """The next key; "q" when the terminal is gone."""
        while not self._keys:
            if self._rest and not select.select([self._fd], [], [], 0.1)[0]:
                self._rest = b""  # Escape pressed alone
            try:
                data = os.read(self._fd, 1024)
            except OSError:
                data = b""
            if not data:
                return "q"
            self._keys, self._rest = decode(self._rest + data)
        return self._keys.pop(0)


def _stopped(_signal: int, _frame: FrameType | None) -> None:
    raise Interrupted("stopped; every answer so far is saved")
