r"""Where the answer stands in what a model wrote.

Only what follows the last `</think>` is read; a thought that never ends has no answer. Then, in this order:

1. the explicit forms: `\boxed{…}` (or `\fbox{…}`), `#### …` to the end of the line, `<answer>…</answer>`. Of several, in
   whatever form, the one that ends last counts: a model that contradicts itself has said its last word, nothing else.
2. a phrase: "the answer is …", "Answer: …", or a line "A: …", the last one, to the end of its line.
3. the last number, which is the only form that is found without being announced.

Every search takes time linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, get_args

from backflip.errors import ConfigError

Form = Literal["boxed", "hash", "tags", "phrase", "number"]
FORMS: tuple[Form, ...] = get_args(Form)
EXPLICIT = ("boxed", "hash", "tags")

_BRACES = re.compile(r"\\(?:boxed|fbox)\s?\{|\\.|[{}]", re.DOTALL)
_HASH = re.compile(r"####[^\S\n]*([^\n]*)")
_TAGS = re.compile(r"<answer>|</answer>")
_PHRASE = re.compile(r"(?:\banswer(?: is|:)|^A:)[^\S\n]*:?([^\n]*)", re.IGNORECASE | re.MULTILINE)
_WRAPPED = re.compile(r"\s*\$*\s*\\(?:boxed|fbox)\s?\{")


class Place(NamedTuple):
    """Where an answer starts and stops, and where the form around it ends."""

    start: int
    stop: int
    end: int


def check_forms(forms: Sequence[Form] | str) -> tuple[Form, ...]:
    """The forms of an answer to look for; one may be given by itself. Raises ConfigError for an unknown one."""
    wanted = (forms,) if isinstance(forms, str) else tuple(forms)
    unknown = [form for form in wanted if form not in FORMS]
    if unknown or not wanted:
        raise ConfigError(f"an answer has no form {(unknown or [''])[0]!r}; choose among {', '.join(FORMS)}")
    return tuple(form for form in FORMS if form in wanted)


def after_thinking(text: str) -> str:
    """What follows the last `</think>`; nothing of a thought that is never closed, everything where nobody thinks."""
    if "</think>" in text:
        return text.rpartition("</think>")[2]
    return text.partition("<think>")[0]


def explicit(text: str, forms: Sequence[Form] = FORMS) -> str | None:
    r"""The explicit answer that ends last, without the box around it. None where there is none.

    >>> explicit("<answer>17</answer> no, \\boxed{18}")
    '18'
    """
    finders = {"boxed": _boxed, "hash": _hashed, "tags": _tagged}
    found = [place for form in EXPLICIT if form in forms for place in finders[form](text)]
    if not found:
        return None
    last = max(found, key=lambda place: place.end)
    return unboxed(text[last.start : last.stop]).strip()


def phrased(text: str, forms: Sequence[Form] = FORMS) -> str | None:
    """What the last "the answer is …" or "A: …" announces. None where there is none, or the form is not wanted."""
    found = None
    for match in _PHRASE.finditer(text) if "phrase" in forms else ():
        found = match
    return found[1].strip() if found else None


def unboxed(text: str) -> str:
    r"""An answer without the boxes around the whole of it.

    >>> unboxed("$\\boxed{\\boxed{3}}$")
    '3'
    """
    for _ in range(4):
        if _WRAPPED.match(text) is None:
            break
        last = max(_boxed(text), key=lambda place: place.end, default=None)
        if last is None or text[last.end :].strip(" $.\n"):
            break
        text = text[last.start : last.stop]
    return text


def _boxed(text: str) -> Iterator[Place]:
    """Every complete box in the order of their ends; braces inside one may nest, a box that is cut off is none."""
    opened: list[int] = []  # where the content of an open box starts, or -1 for another brace
    for match in _BRACES.finditer(text):
        token = match[0]
        if token == "{" or (token[-1] == "{" and len(token) > 2):
            opened.append(-1 if token == "{" else match.end())
        elif token == "}" and opened:
            start = opened.pop()
            if start >= 0:
                yield Place(start, match.start(), match.end())


def _hashed(text: str) -> Iterator[Place]:
    for match in _HASH.finditer(text):
        yield Place(match.start(1), match.end(), match.end())


def _tagged(text: str) -> Iterator[Place]:
    start = -1
    for match in _TAGS.finditer(text):
        if match[0] == "<answer>":
            start = match.end()
        elif start >= 0:
            yield Place(start, match.start(), match.end())
            start = -1
