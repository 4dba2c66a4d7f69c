r"""Numbers as people and models write them, as exact fractions.

    1,000 · 1{,}000 · $18 · 18.00 · 18% · 18 eggs · 18. · −5 · 3/4 · 1 3/4 · \frac{3}{4} · 1.5e3 · ١٨

Currency and percent signs are dropped, not applied: 18% is 18, as it is in the reference answers of GSM8K. Powers, versions,
dates and indices (10^3, 1.2.3, 1/2/2020, x_2, m2, 18,19) are not numbers, nor is a division that was left undone (36/2).
Every pattern here takes time linear in the text.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

MAX_DIGITS = 1000

_WHOLE = r"(?>[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
_DECIMAL = rf"(?>{_WHOLE}(?:\.[0-9]+)?|\.[0-9]+)"
_NUMBER = re.compile(
    rf"""
    (?<![0-9A-Za-z_^]) (?<![0-9][.,/]) (?<![0-9]\*\*)           # not inside a word, an index, a power or a date
    (?P<sign> (?<![)\]}}%]) - )?                                  # "20-2" is a difference, "(-2" is not
    (?>
        (?P<units> [0-9]{{1,4}} ) \s (?P<top> [0-9]{{1,4}} ) / (?P<under> [0-9]{{1,4}} )
      | (?P<value> {_DECIMAL} (?>[eE][+-]?[0-9]{{1,3}}(?![0-9A-Za-z]))? ) (?> \s?/\s? (?P<divisor> {_DECIMAL} ) )?
    )
    (?! [0-9²³¹⁰⁴-⁹] | [.,/][0-9] | [eE][+-]?[0-9] | \s*\^ | \s?\*\*\s?[0-9] )
    """,
    re.VERBOSE,
)
_SAME = {"−": "-", "\\$": "$", "\\%": "%", "{,}": ",", "\\,": "", "\\!": "", "\\;": " ", "\\ ": " ", "\\left": "", "\\right": ""}
_FRACTION = re.compile(r"\\[dt]?frac\s?\{\s?([0-9]{1,100})\s?\}\s?\{\s?([0-9]{1,100})\s?\}")
_GROUP_SPACE = re.compile(r"(?<=[0-9])[\u00a0\u2009\u202f](?=[0-9]{3}(?![0-9]))")
_CURRENCY = re.compile(r"(-?)[$€£¥₹]\s?")
_BOLD = re.compile(r"\*\*([^*\n]{1,200})\*\*")
_OPERATORS = ("+", "*", "^", "×", "÷")
_JOINT = re.compile(r"[,;|/&*-]?(?:or|and)?[*-]?", re.IGNORECASE)


def plain(text: str) -> str:
    """The text with ASCII digits, without LaTeX spacing, currency signs and `\\frac`."""
    if not text.isascii():
        text = _GROUP_SPACE.sub("", text)
        text = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)
    for written, same in _SAME.items():
        text = text.replace(written, same)
    text = _CURRENCY.sub(r" \1", text)
    return _FRACTION.sub(lambda m: (" " if m.start() and m.string[m.start() - 1].isdigit() else "") + f"{m[1]}/{m[2]}", text)


def only_number(text: str) -> Fraction | None:
    """The one number an answer consists of, units aside; None when there is none, or more, or it is part of a sum or product.

    Of an equation the right side counts: a chain of them commits to its last value.

    >>> only_number("x = 1,000 dollars"), only_number("17 or 18"), only_number("x + 18")
    (Fraction(1000, 1), None, None)
    """
    text = _BOLD.sub(r" \1 ", plain(text).rpartition("=")[2]).strip()
    text = "-" + text[2:] if text.startswith("- ") else text.removeprefix("+")
    found = list(_NUMBER.finditer(text))
    if (
        len(found) != 1
        or text[: found[0].start()].rstrip()[-1:] in _OPERATORS
        or text[found[0].end() :].lstrip()[:1] in _OPERATORS
    ):
        return None
    return _value(found[0])


def last_number(text: str) -> Fraction | None:
    """The last number of a text; None when it is the end of a list of candidates ("16, 17 or 18").

    Candidates are numbers with nothing but separators between them on one line, or alone on neighbouring lines.

    >>> last_number("12 + 6 is 18 eggs."), last_number("16, 17, 18")
    (Fraction(18, 1), None)
    """
    text = plain(text)
    found = list(_NUMBER.finditer(text))[-2:]
    if not found:
        return None
    value = _value(found[-1])
    if len(found) == 2 and _listed(text, *found) and value != _value(found[0]):
        return None
    return value


def _listed(text: str, first: re.Match[str], second: re.Match[str]) -> bool:
    between = text[first.end() : second.start()]
    if _JOINT.fullmatch("".join(between.split())) is None:
        return False
    if "\n" not in between:
        return True
    line = text[: first.start()].rpartition("\n")[2] + text[first.end() :].partition("\n")[0]
    return not line.strip(" ,;|-*")


def _value(match: re.Match[str]) -> Fraction | None:
    """The value of a match of `_NUMBER`; None where it is too long to read, divides by zero or is a whole number undivided."""
    parts = (match["value"], match["divisor"], match["units"], match["top"], match["under"])
    if any(part and len(part) > MAX_DIGITS for part in parts):
        return None
    value, divisor, units, top, under = (Fraction((part or "0").replace(",", "")) for part in parts)
    if match["units"]:
        value, divisor = units * under + top, under
    if match["divisor"] or match["units"]:
        if divisor == 0:
            return None
        value /= divisor
        if match["divisor"] and value.denominator == 1:
            return None
    return -value if match["sign"] else value
