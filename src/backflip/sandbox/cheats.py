"""Signs of cheating in a program's text. They are counted, never a defence: whoever cheats can write them another way."""

from __future__ import annotations

import re

SIGNS = {
    "os_exit": r"\b_exit\b",
    "sys_exit": r"\bsys\s*\.\s*exit\b|\bSystemExit\b",
    "equality": r"__(?:eq|ne|hash)__",
    "introspection": r"\bgc\b|\binspect\b|\b_getframe\b|\b(?:f|tb|gi|cr)_(?:back|frame|globals|locals)\b|\bsettrace\b",
    "atexit": r"\batexit\b",
    "hooks": r"\bexcepthook\b|\bdisplayhook\b|\bbuiltins\b|\b__builtins__\b",
    "tests": r"\bunittest\b|\bpytest\b|\bargv\b|/proc/",
}
"""Name of a sign and the pattern it is known by."""

_PATTERNS = {name: re.compile(pattern) for name, pattern in SIGNS.items()}


def signs(code: str) -> tuple[str, ...]:
    """The signs that stand in a program, in the order of `SIGNS`; comments and strings count like code.

    >>> signs("import os; os._exit(0)")
    ('os_exit',)
    """
    return tuple(name for name, pattern in _PATTERNS.items() if pattern.search(code))
