"""Who met whom on which prompt, and how it went: what ratings are computed from, kept small and kept up to date.

Of every match only the names, the lengths and a fingerprint of the texts are held, so that reading what is new costs what is
new, however much was said before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

from backflip.arena.matches import SAME_TEXT, same_text_purpose
from backflip.errors import DataError
from backflip.records import Query, Verdict

Counts = Callable[[str], bool]
"""Whether the answers of somebody count, by name."""


class VerdictStore(Protocol):
    """What `Games.of` needs of a feedback store."""

    def queries(self, purpose: str | None = None) -> list[Query]:
        """Every query of a purpose."""

    def verdicts(self, since: int = 0, purpose: str | None = None) -> list[Verdict]:
        """Every verdict on queries of a purpose that was not taken back."""


class Game(NamedTuple):
    """One vote between two policies on a prompt, named by its id: `left` won with belief `p_left`.

    `left_length` and `right_length` are the characters of their texts; both are 0 for what is no text.
    """

    prompt: str
    left: str
    right: str
    p_left: float
    left_length: int
    right_length: int


class _Match(NamedTuple):
    prompt: str
    policies: tuple[str, ...]
    lengths: tuple[int, ...]
    texts: tuple[int, ...]
    same_text: bool


class Games:
    """The matches of one purpose and the verdicts on them. `ask` before `answer`; what is given again changes nothing.

    `changes` counts what changed something, so that whoever keeps what follows from the matches knows when it is old.
    """

    def __init__(self, purpose: str = "arena") -> None:
        self.purpose = purpose
        self.changes = 0
        self._matches: dict[str, _Match] = {}
        # By question and annotator, in the order they answered: only the last answer counts, unless it was taken back.
        self._answers: dict[tuple[str, str], dict[Verdict, list[Game]]] = {}
        self._in_order: list[tuple[str, str]] = []
        self._names: set[str] = set()
        self._met: dict[frozenset[str], set[str]] = {}
        self._wrote: dict[str, dict[str, set[int]]] = {}

    @classmethod
    def of(cls, store: VerdictStore, purpose: str = "arena") -> Games:
        """Everything in a store. Raises DataError for a match that does not say who wrote its texts."""
        games, both = cls(purpose), (purpose, same_text_purpose(purpose))
        # Verdicts before queries: a query is filed first, so whoever votes meanwhile leaves no verdict without its query.
        verdicts = [verdict for each in both for verdict in store.verdicts(purpose=each)]
        games.ask(query for each in both for query in store.queries(each))
        games.answer(verdicts)
        return games

    @property
    def names(self) -> list[str]:
        """All policies that are to play, in alphabetical order."""
        return sorted(self._names)

    def votes(self, counts: Counts | None = None) -> int:
        """Standing answers that are no skips, of everybody who `counts`; ties of identical texts left out."""
        return sum(bool(games) for _, games in self._given(counts))

    def annotators(self, counts: Counts | None = None) -> list[str]:
        """Everybody who counts and has answered, in alphabetical order."""
        return sorted({by for by, _ in self._given(counts)})

    def ask(self, queries: Iterable[Query]) -> None:
        """File matches. Raises DataError, having filed nothing, for one that does not say who wrote its texts."""
        new: dict[str, _Match] = {}
        for query in queries:
            id = query.id
            if not query.policies or not all(query.policies):
                raise DataError(f"match {id} does not say which policies wrote its texts; give its 'policies'")
            lengths = tuple(len(text) if query.form == "text" else 0 for text in query.completions)
            texts, same = tuple(map(hash, query.completions)), query.purpose == same_text_purpose(self.purpose)
            new[id] = _Match(query.prompt.id, query.policies, lengths, texts, same)
        for match in new.values():
            self._names.update(match.policies)
            for i, name in enumerate(match.policies):
                self._wrote.setdefault(name, {}).setdefault(match.prompt, set()).add(match.texts[i])
                for other in match.policies[:i]:
                    self._met.setdefault(frozenset((name, other)), set()).add(match.prompt)
        self.changes += len(new.keys() - self._matches.keys())
        self._matches |= new

    def answer(self, verdicts: Iterable[Verdict]) -> None:
        """File verdicts in the order they were given. Raises DataError for one on a match that was not filed."""
        for verdict in verdicts:
            match = self._matches.get(verdict.query_id)
            if match is None:
                raise DataError(
                    f"a verdict by {verdict.annotator!r} answers query {verdict.query_id}, which is not among the matches"
                )
            # Whoever was shown two identical texts all the same told us nothing; only the tie filed with them counts.
            if match.same_text and verdict.annotator != SAME_TEXT:
                continue
            given = self._answers.setdefault((verdict.query_id, verdict.annotator), {})
            if verdict not in given:
                given[verdict] = _games(match, verdict)
                self.changes += 1

    def take_back(self, verdicts: Iterable[Verdict]) -> None:
        """Forget verdicts; those that are not here change nothing."""
        for verdict in verdicts:
            gone = self._answers.get((verdict.query_id, verdict.annotator), {}).pop(verdict, None)
            self.changes += gone is not None

    def played(self, counts: Counts | None = None) -> list[Game]:
        """Every game played, in an order that does not depend on who answered when.

        `counts` says whose answers count, by name; ties of identical texts count whoever is asked.
        """
        if len(self._in_order) != len(self._answers):
            self._in_order = sorted(self._answers)
        found: list[Game] = []
        for key in self._in_order:
            given = self._answers[key]
            if given and (counts is None or self._matches[key[0]].same_text or counts(key[1])):
                found += next(reversed(given.values()))
        return found

    def asked(self, a: str, b: str) -> set[str]:
        """The prompts, by their ids, on which two policies meet, played or not."""
        return self._met.get(frozenset((a, b)), set())

    def open(self, a: str, b: str) -> int:
        """How many matches of two policies nobody has answered yet."""
        answered = {id for (id, _), games in self._last() if games}
        return sum(
            id not in answered and not match.same_text and {a, b} <= set(match.policies) for id, match in self._matches.items()
        )

    def wrote(self, policy: str, prompt: str, text: str) -> bool | None:
        """Whether `text` is what a policy brought for a prompt; None where it has brought nothing."""
        known = self._wrote.get(policy, {}).get(prompt)
        return None if known is None else hash(text) in known

    def _given(self, counts: Counts | None) -> Iterator[tuple[str, list[Game]]]:
        for (id, by), games in self._last():
            if not self._matches[id].same_text and (counts is None or counts(by)):
                yield by, games

    def _last(self) -> Iterator[tuple[tuple[str, str], list[Game]]]:
        """The last standing answer of everybody to every question."""
        for key, given in self._answers.items():
            if given:
                yield key, next(reversed(given.values()))


def _games(match: _Match, verdict: Verdict) -> list[Game]:
    """What a verdict says of the policies of a match; nothing of two texts by the same one."""
    names, lengths = match.policies, match.lengths
    return [
        Game(match.prompt, names[i], names[j], p_left, lengths[i], lengths[j])
        for i, j, p_left, _ in verdict.outcomes(len(names))
        if names[i] != names[j]
    ]
