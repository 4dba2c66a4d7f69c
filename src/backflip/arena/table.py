"""Standings as rows of text, for a plain `print` and for the command line alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backflip.arena.ratings import Standings
    from backflip.maths.ratings import WinRate

RATING_HEADER = ("rank", "policy", "rating", "95 % interval", "votes")


def rating_rows(standings: Standings) -> list[tuple[str, ...]]:
    """One row for each policy under `RATING_HEADER`; a dash where there is nothing to say yet."""
    rows: list[tuple[str, ...]] = []
    for rating in standings.ratings:
        best, worst = standings.rank_ranges.get(rating.policy, (0, 0))
        rank = "–" if not best else str(best) if best == worst else f"{best}–{worst}"
        known = rating.rating is not None and rating.low is not None and rating.high is not None
        shown = f"{rating.rating:.0f}" if known else "–"
        interval = f"{rating.low:.0f} … {rating.high:.0f}" if known else "–"
        if rating.policy == standings.anchor and known:
            interval = "anchor"  # it stands at 1000 by definition; the others' intervals carry the doubt
        rows.append((rank, rating.policy, shown, interval, str(rating.matches)))
    return rows


def win_rate_rows(standings: Standings) -> list[tuple[str, ...]]:
    """A header of policies, then a row for each: how often it beat the one named above the column."""
    names = [rating.policy for rating in standings.ratings]
    rows: list[tuple[str, ...]] = [("beats →", *names)]
    for a in names:
        rows.append((a, *(_win_rate(standings.win_rates.get((a, b)), a == b) for b in names)))
    return rows


def plain_table(standings: Standings) -> str:
    """Ratings, win rates and notes as plain text."""
    lines = [f"note: {note}" for note in standings.notes]
    if standings.ratings:
        ratings = _aligned([RATING_HEADER, *rating_rows(standings)])
        lines = [*ratings, "", *_aligned(win_rate_rows(standings)), *([""] if lines else []), *lines]
    return "\n".join(lines)


def _win_rate(rate: WinRate | None, itself: bool) -> str:
    if rate is None:
        return "" if itself else "–"
    return f"{rate.mean:.0%} [{100 * rate.low:.0f}, {100 * rate.high:.0f}] n={rate.n}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
