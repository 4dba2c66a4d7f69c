"""How a query looks in a terminal: the prompt, its completions in their places, and the keys. No names of policies.

What a model wrote is shown, never obeyed: control characters, escape sequences and marks that turn the direction
of writing appear as visible signs.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from backflip.records import Prompt, Query

SIDE_BY_SIDE = 72  # columns of the terminal from which two texts are easier to read beside than above each other
PAIR_KEYS = "← left   → right   ↓ tie   s skip   u undo   q quit"
RANKING_KEYS = "numbers from best to worst, = before an equal one (2 1=3), Enter   s skip   u undo   q quit"
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


def safe(text: str) -> str:
    """Text that a terminal shows and does not act on; line breaks and tabs stay.

    >>> safe("red: \\x1b[31m!")
    'red: ␛[31m!'
    """
    return _CONTROL.sub(_sign, text.replace("\r\n", "\n")).expandtabs(4)


def _sign(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    return "\ufffd" if unicodedata.category(found[0]) in ("Cc", "Cs") else f"<U+{code:04X}>"


def question(query: Query, order: Sequence[int], progress: str, width: int) -> RenderableType:
    """The whole screen above the line where the person types."""
    texts = [query.completions[i] for i in order]
    answers: RenderableType
    if len(texts) > 2:
        answers = Group(*(_panel(text, str(place)) for place, text in enumerate(texts, 1)))
        keys = RANKING_KEYS
    else:
        panels = [_panel(texts[0], "← left"), _panel(texts[1], "right →")]
        answers = _beside(panels) if width >= SIDE_BY_SIDE else Group(*panels)
        keys = PAIR_KEYS
    return Group(Rule(Text(progress)), _prompt(query.prompt), answers, Text("Which is better?  " + keys, style="dim"))


def _panel(text: str, title: str) -> Panel:
    shown = Text(safe(text)) if text.strip() else Text("(no text)", style="dim italic")
    return Panel(shown, title=Text(title), title_align="left")


def _beside(panels: Sequence[Panel]) -> Table:
    grid = Table.grid(expand=True)
    for panel in panels:
        panel.expand = True
        grid.add_column(ratio=1)
    grid.add_row(*panels)
    return grid


def _prompt(prompt: Prompt) -> Text:
    if isinstance(prompt.text, str):
        return Text(safe(prompt.text.strip("\n")) + "\n", style="bold")
    shown = Text()
    for message in prompt.messages:
        shown.append(safe(message.role) + ": ", style="cyan")
        shown.append(safe(message.content) + "\n", style="bold")
    return shown
