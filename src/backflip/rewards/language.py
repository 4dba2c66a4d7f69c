"""Words of a text, and the language consistency reward of DeepSeek-R1.

A language is known by its script; languages of one script can be told apart by a list of words only.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Collection
from typing import Any

from backflip.errors import ConfigError

# ISO 639-1 code → scripts, as the names of Unicode characters begin
SCRIPTS: dict[str, frozenset[str]] = {
    **dict.fromkeys(("en", "de", "fr", "es", "it", "pt", "nl", "pl", "tr", "vi"), frozenset({"LATIN"})),
    "zh": frozenset({"CJK"}),
    "ja": frozenset({"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"}),
    "ko": frozenset({"HANGUL"}),
    **dict.fromkeys(("ru", "uk", "bg", "sr"), frozenset({"CYRILLIC"})),
    **dict.fromkeys(("ar", "fa", "ur"), frozenset({"ARABIC"})),
    "el": frozenset({"GREEK"}),
    "he": frozenset({"HEBREW"}),
    "hi": frozenset({"DEVANAGARI"}),
    "th": frozenset({"THAI"}),
}
WITHOUT_SPACES = frozenset({"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "THAI"})
# Mathematics and code are of no language: LaTeX commands and environments, tags, and formulas between dollar signs.
_NEUTRAL = re.compile(r"\\[A-Za-z]+|</?[A-Za-z][\w-]{0,30}>|\$[^$\n]{0,300}\$")
_LETTERS = re.compile(r"[^\W\d_]+")


@functools.lru_cache(maxsize=1 << 16)
def script(character: str) -> str:
    """The script of a letter, as its Unicode name begins: LATIN, CJK, CYRILLIC, …; "" for a character without a name."""
    name = unicodedata.name(character, "")
    return name.removeprefix("FULLWIDTH ").removeprefix("HALFWIDTH ").split(" ")[0]


def words(text: str) -> list[str]:
    """The words of a text: runs of letters of one script; a letter of a script without spaces is a word by itself.

    Figures, punctuation and formulas are none.

    >>> words("Then 3 + 4 = 7, 所以 is $x$")
    ['Then', '所', '以', 'is']
    """
    found: list[str] = []
    for run in _LETTERS.finditer(_NEUTRAL.sub(" ", text)):
        if run[0].isascii():
            found.append(run[0])
            continue
        before = ""
        for character in run[0]:
            now = script(character)
            if now == before and now not in WITHOUT_SPACES:
                found[-1] += character
            else:
                found.append(character)
            before = now
    return found


def thoughts(text: str) -> str:
    """What stands between `<think>` (or the beginning) and the last `</think>`; the whole text when nothing closes it."""
    inside = text.rpartition("</think>")[0] if "</think>" in text else text
    return inside.partition("<think>")[2] if "<think>" in inside else inside


class LanguageConsistency:
    """The share of the thoughts' words that are of the target language (DeepSeek-R1, 2501.12948, section 2.3.2).

        r = #(words of the target language) / #(words)

    `target` is a language code such as en or zh, known by its script, or a collection of words (compared in lower case).
    Thoughts without any word get 0, so figures alone are not a way to the reward. The paper adds it to the accuracy reward
    with weight 1.
    """

    low, high = 0.0, 1.0

    def __init__(self, *, target: str | Collection[str] = "en") -> None:
        if isinstance(target, str) and target not in SCRIPTS:
            raise ConfigError(
                f"no script is known for the language {target!r}; choose among {', '.join(sorted(SCRIPTS))}, or give its words"
            )
        self.target = target
        self._scripts = SCRIPTS[target] if isinstance(target, str) else frozenset()
        self._words = frozenset() if isinstance(target, str) else frozenset(word.lower() for word in target)

    def __call__(self, prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[float]:
        """One share per completion."""
        return [self._share(words(thoughts(text))) for text in completions]

    def _share(self, found: list[str]) -> float:
        return sum(map(self._is_target, found)) / len(found) if found else 0.0

    def _is_target(self, word: str) -> bool:
        return word.lower() in self._words or script(word[0]) in self._scripts
