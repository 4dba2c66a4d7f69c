"""Which generation comes after which, by name, and which match would join those that never met."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

EARLIEST = ("base", "sft")
"""The names of what a loop starts from, whatever the generations after it are called."""


def generation_order(names: Iterable[str]) -> list[str]:
    """Names in the order in which such generations are made: what a loop starts from first, then by their numbers.

    >>> generation_order(["round10", "round2", "sft", "round1"])
    ['sft', 'round1', 'round2', 'round10']
    """

    def key(name: str) -> tuple[int, list[tuple[int, str]], str]:
        start = EARLIEST.index(name) if name in EARLIEST else len(EARLIEST)
        parts = re.split(r"([0-9]+)", name.casefold())
        return start, [(int(part), "") if i % 2 else (-1, part) for i, part in enumerate(parts)], name

    return sorted(set(names), key=key)


def usual_anchor(names: Sequence[str]) -> str | None:
    """Who stands at 1000 unless somebody is chosen: the fine-tuned policy, else the earliest of `names`."""
    return "sft" if "sft" in names else next(iter(generation_order(names)), None)


def missing_links(groups: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    """The matches, one fewer than the groups, that would join groups which never met: always of the nearest generations.

    >>> missing_links([("round2", "round3"), ("round1", "sft")])
    [('round1', 'round2')]
    """
    order = generation_order(name for group in groups for name in group)
    place = {name: i for i, name in enumerate(order)}
    joined, *others = sorted(([*group] for group in groups), key=lambda group: min(place[name] for name in group)) or [[]]
    links = []
    for group in others:
        links.append(min(((a, b) for a in joined for b in group), key=lambda link: (abs(place[link[0]] - place[link[1]]), link)))
        joined = joined + group
    return links
