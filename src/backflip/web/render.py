"""What a model wrote, as HTML that can do no harm: Markdown without HTML, cleaned again by an allow-list.

What looks like a tag is shown as it was written, so the person still sees it. Links must be absolute http, https or mailto;
pictures are not loaded. Characters that turn the reading direction around are shown as signs, so no text can pretend to be
another (CVE-2021-42574). Cached by content: the same answer is rendered once.
"""

from __future__ import annotations

import functools
import re
from typing import Any

_TAGS = {
    "p", "br", "hr", "strong", "em", "s", "del", "code", "pre", "blockquote", "ul", "ol", "li", "h1", "h2", "h3", "h4", "h5",
    "h6", "a", "table", "thead", "tbody", "tr", "th", "td", "span",
}  # fmt: skip
_BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_ABSOLUTE = re.compile(r"(?:https?://[^/\\\s]|mailto:[^/\\\s])", re.IGNORECASE)
MASK = "▇▇▇"


@functools.lru_cache(maxsize=4096)
def markdown(text: str) -> str:
    """Safe HTML of a text in Markdown."""
    import nh3

    safe = nh3.clean(
        _reader().render(visible(text)), tags=_TAGS, attributes={"a": {"href"}, "ol": {"start"}},
        url_schemes={"http", "https", "mailto"}, link_rel="noopener noreferrer nofollow",
        attribute_filter=_attribute,
    )  # fmt: skip
    return visible(safe)  # once more: &#x202E; is such a character too


def visible(text: str) -> str:
    """The text with what turns the reading direction around written out, such as ⟨U+202E⟩."""
    return _BIDI.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text)


def masked(text: str, names: tuple[str, ...]) -> str:
    """The text with the names of those who may have written it hidden, so that an answer cannot say whose it is.

    >>> masked("I am PPO-7, not ppo-70", ("ppo-7",))
    'I am ▇▇▇, not ppo-70'
    """
    for name in sorted({name for name in names if name}, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", MASK, text, flags=re.IGNORECASE)
    return text


@functools.cache
def _reader() -> Any:
    from markdown_it import MarkdownIt

    return MarkdownIt("js-default", {"html": False, "linkify": False, "typographer": False}).disable("image")


def _attribute(tag: str, name: str, value: str) -> str | None:
    if (tag, name) == ("a", "href"):
        return value if _ABSOLUTE.match(value) else None
    return value if (tag, name) in (("ol", "start"), ("a", "rel")) else None  # rel is ours; not, for one, a title
