"""The nouns that cross rooms: frozen, torch-free, and each a line of JSON.

    Prompt ──policy──▶ Sample ──▶ Query ──labeler──▶ Verdict ──▶ Comparison ──▶ reward model
                                                                      └───────▶ Rating

A `Verdict` is what somebody did; a `Comparison` is what we believe because of it. `to_json` and `from_json` turn
any of them into a plain dictionary and back.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, Self

Choice = Literal["left", "right", "tie", "skip", "ranking", "rating"]
Form = Literal["text", "clip", "board"]
TIES = ("equal", "good", "bad")
SKIPS = ("language", "unsafe", "broken", "duplicate", "cannot", "other")
STRONGEST = 4


def content_id(*parts: object) -> str:
    """A 16-digit identity that depends on the content alone, so making the same thing twice makes it once."""
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no place in a record")


class Record:
    """What every record can do: become JSON and come back.

    `later` names fields that a record got after the first release. With their defaults they stand neither in its JSON nor in
    its id, so what was written before is the same record still.
    """

    __slots__ = ()
    later: ClassVar[tuple[str, ...]] = ()

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain JSON values."""
        unsaid = self._unsaid()
        names = (f.name for f in dataclasses.fields(self))  # type: ignore[arg-type]
        values = {name: getattr(self, name) for name in names if name not in unsaid}  # a tenth of the time of `asdict`
        return json.loads(json.dumps(values, ensure_ascii=False, default=_plain))  # type: ignore[no-any-return]

    def _unsaid(self) -> list[str]:
        if not self.later:
            return []
        defaults = {f.name: f.default for f in dataclasses.fields(self) if f.name in self.later}  # type: ignore[arg-type]
        return [name for name in self.later if getattr(self, name) == defaults[name]]

    def _said(self) -> dict[str, Any]:
        unsaid = self._unsaid()
        return {name: getattr(self, name) for name in self.later if name not in unsaid}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """The record that `to_json` wrote. Raises KeyError, TypeError or ValueError on anything else."""
        return cls(**row)


@dataclass(frozen=True, slots=True)
class Message(Record):
    """One turn of a conversation.

    >>> Message("user", "Name a colour.").to_json()
    {'role': 'user', 'content': 'Name a colour.'}
    """

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Prompt(Record):
    """What a policy is asked: plain text, or the messages of a conversation so far.

    `columns` are the other columns of the prompt's row; reward functions receive them by name.

    >>> Prompt("The film was").text
    'The film was'
    >>> Prompt((Message("user", "Hi"),)).messages[0].content
    'Hi'
    """

    text: str | tuple[Message, ...]
    columns: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            turns = tuple(m if isinstance(m, Message) else Message(**m) for m in self.text)
            object.__setattr__(self, "text", turns)

    @property
    def id(self) -> str:
        """Identity by content."""
        return content_id("prompt", self.text, self.columns)

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation; plain text counts as one user turn."""
        return (Message("user", self.text),) if isinstance(self.text, str) else self.text

    @property
    def plain(self) -> str:
        """The prompt as a person reads it."""
        if isinstance(self.text, str):
            return self.text
        return "\n\n".join(f"{m.role}: {m.content}" for m in self.text)


@dataclass(frozen=True, slots=True)
class Sample(Record):
    """One completion that a policy wrote for a prompt.

    `logps` are the natural-log probabilities of `tokens` under the distribution they were drawn from, one each;
    `finished` says whether the policy ended the text itself (False: cut off at the length limit).

    >>> Sample(Prompt("The film was"), " good.", policy="sft", tokens=(7, 2), logps=(-0.1, -0.2)).n_tokens
    2
    """

    prompt: Prompt
    text: str
    policy: str = ""
    tokens: tuple[int, ...] = ()
    logps: tuple[float, ...] = ()
    finished: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, Prompt):
            object.__setattr__(self, "prompt", Prompt.from_json(self.prompt))
        object.__setattr__(self, "tokens", tuple(self.tokens))
        object.__setattr__(self, "logps", tuple(self.logps))
        if self.logps and len(self.logps) != len(self.tokens):
            raise ValueError(f"{len(self.tokens)} tokens but {len(self.logps)} log-probabilities")

    @property
    def n_tokens(self) -> int:
        """How many tokens the policy emitted, the end-of-text token included."""
        return len(self.tokens)


@dataclass(frozen=True, slots=True)
class Query(Record):
    """A question for a labeler: which of these completions is better?

    `policies` says who wrote each completion; no labeler is ever shown it. `purpose` keeps apart what was asked
    for training ("train") from what was asked to compare generations ("arena") or to hold out ("test"). `form` says what a
    completion is: "text"; a "clip", named by the SHA-256 of its file among the store's media; or a "board", drawn from its
    JSON (see docs/studio.md).

    >>> q = Query(Prompt("Say hi"), ("hi", "no"), policies=("a", "b"))
    >>> q.id == Query(Prompt("Say hi"), ("hi", "no"), policies=("a", "b")).id
    True
    """

    prompt: Prompt
    completions: tuple[str, ...]
    policies: tuple[str, ...] = ()
    purpose: str = "train"
    form: Form = "text"
    later = ("form",)

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, Prompt):
            object.__setattr__(self, "prompt", Prompt.from_json(self.prompt))
        if self.form not in ("text", "clip", "board"):
            raise ValueError(f"unknown form {self.form!r}; use text, clip or board")
        object.__setattr__(self, "completions", tuple(self.completions))
        object.__setattr__(self, "policies", tuple(self.policies))
        if len(self.completions) < 2:
            raise ValueError("a query needs at least two completions")
        if self.policies and len(self.policies) != len(self.completions):
            raise ValueError(f"{len(self.completions)} completions but {len(self.policies)} policies")

    @property
    def id(self) -> str:
        """Identity by content."""
        said = self._said()
        return content_id("query", self.prompt, self.completions, self.policies, self.purpose, *([said] if said else []))


class Outcome(NamedTuple):
    """Of two completions of a query, by their numbers, the `left` one is better with probability `p_left`."""

    left: int
    right: int
    p_left: float
    weight: float


@dataclass(frozen=True, slots=True)
class Verdict(Record):
    """What a labeler did with a query.

    "left" and "right" name `completions[0]` and `completions[1]` of the query whatever was shown where;
    `shown_first` is the index of the completion that stood on the left (or on top) of the screen. A "ranking"
    lists groups of completion indices from best to worst, equal ones together: ((2,), (0, 1)) says that the third is best
    and the other two tie. `ms` is the time from seeing to answering; `at` is seconds since 1970 (0: simulated).
    `id` is the idempotency key: storing a verdict twice stores it once.

    A "rating" gives each completion a score, as in `scores`, in the order of the completions; higher is better. `strength`
    says how much better the better one is, from 1 (slightly) to 4 (much); 0: not said. `code` says why it is a tie, one of
    `TIES`, or why it was passed over, one of `SKIPS`; "": not said.

    >>> Verdict("q1", "ann", "left").id == Verdict("q1", "ann", "left").id
    True
    """

    query_id: str
    annotator: str
    choice: Choice
    ranking: tuple[tuple[int, ...], ...] = ()
    shown_first: int = 0
    ms: int = 0
    at: float = 0.0
    note: str = ""
    strength: int = 0
    code: str = ""
    scores: tuple[float, ...] = ()
    later = ("strength", "code", "scores")

    def __post_init__(self) -> None:
        if self.choice not in ("left", "right", "tie", "skip", "ranking", "rating"):
            raise ValueError(f"unknown choice {self.choice!r}; use left, right, tie, skip, ranking or rating")
        object.__setattr__(self, "ranking", tuple(tuple(group) for group in self.ranking))
        object.__setattr__(self, "scores", tuple(float(score) for score in self.scores))
        if (self.choice == "ranking") != bool(self.ranking):
            raise ValueError("choice 'ranking' and a ranking go together")
        if (self.choice == "rating") != bool(self.scores) or not all(map(math.isfinite, self.scores)):
            raise ValueError("choice 'rating' and scores, finite numbers, go together")
        if self.strength and (self.choice not in ("left", "right") or not 0 < self.strength <= STRONGEST):
            raise ValueError(f"a strength of {self.strength}: a choice of left or right has one from 1 to {STRONGEST}, or 0")
        codes = {"tie": TIES, "skip": SKIPS}.get(self.choice, ())
        if self.code and self.code not in codes:
            raise ValueError(f"code {self.code!r} of a {self.choice}: {'use ' + ', '.join(codes) if codes else 'it has none'}")

    @property
    def id(self) -> str:
        """Identity by content, the moment included: a second answer at another time is another verdict."""
        said = self._said()
        first = (getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in self.later)
        return content_id("verdict", *first, *([said] if said else []))

    def comparisons(self, query: Query) -> list[Comparison]:
        """What we believe because of this verdict: none for a skip, one for a pair, C(K,2) for a ranking or a rating.

        The pairs of a ranking or rating of K share one unit of weight (InstructGPT, eq. 1: the 1/C(K,2) in front).
        """
        if self.query_id != query.id:
            raise ValueError(f"verdict on query {self.query_id} given query {query.id}")
        names = query.policies or ("",) * len(query.completions)
        return [
            Comparison(
                prompt=query.prompt,
                left=query.completions[i],
                right=query.completions[j],
                p_left=p_left,
                weight=weight,
                annotator=self.annotator,
                query_id=query.id,
                left_policy=names[i],
                right_policy=names[j],
                strength=self.strength,
                left_rating=self.scores[i] if self.scores else None,
                right_rating=self.scores[j] if self.scores else None,
                at=self.at,
            )
            for i, j, p_left, weight in self.outcomes(len(query.completions))
        ]

    def outcomes(self, n: int) -> list[Outcome]:
        """`comparisons` by the numbers of the completions alone, for a query that has `n` of them.

        >>> Verdict("q1", "ann", "left").outcomes(2)
        [Outcome(left=0, right=1, p_left=1.0, weight=1.0)]
        """
        if self.choice == "skip":
            return []
        if self.choice == "rating":
            return self._pairs(n, [-score for score in self.scores])
        if self.choice != "ranking":
            if n != 2:
                raise ValueError(f"choice {self.choice!r} on {n} completions; give a ranking")
            p_left = {"left": 1.0, "right": 0.0, "tie": 0.5}[self.choice]
            return [Outcome(0, 1, p_left, 1.0)]
        place = {i: rank for rank, group in enumerate(self.ranking) for i in group}
        if sorted(place) != list(range(n)):
            raise ValueError(f"ranking {self.ranking} does not place each of {n} completions once")
        return self._pairs(n, [place[i] for i in range(n)])

    def _pairs(self, n: int, places: Sequence[float]) -> list[Outcome]:
        """Every pair of completions, of which the one with the lower place is better."""
        if len(places) != n:
            raise ValueError(f"{len(places)} scores for {n} completions")
        pairs = list(itertools.combinations(range(n), 2))
        belief = {True: 1.0, False: 0.0}
        return [
            Outcome(i, j, 0.5 if places[i] == places[j] else belief[places[i] < places[j]], 1.0 / len(pairs)) for i, j in pairs
        ]


@dataclass(frozen=True, slots=True)
class Comparison(Record):
    """What we believe about two completions of one prompt: the left one is better with probability `p_left`.

    `margin` is by how many nats the winner is asked to win; `strength`, from 1 to 4, is how much better the labeler called it (0:
    not said), `left_rating` and `right_rating` the numbers given to the two, `at` when, in seconds since 1970 (0: unknown).

    >>> c = Comparison(Prompt("Say hi"), "hi", "no", p_left=1.0)
    >>> c.swap().p_left, c.swap().left
    (0.0, 'no')
    >>> c.chosen, c.rejected
    ('hi', 'no')
    """

    prompt: Prompt
    left: str
    right: str
    p_left: float
    weight: float = 1.0
    margin: float = 0.0
    annotator: str = ""
    query_id: str = ""
    left_policy: str = ""
    right_policy: str = ""
    strength: int = 0
    left_rating: float | None = None
    right_rating: float | None = None
    at: float = 0.0
    later = ("strength", "left_rating", "right_rating", "at")

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, Prompt):
            object.__setattr__(self, "prompt", Prompt.from_json(self.prompt))
        if not 0.0 <= self.p_left <= 1.0:
            raise ValueError(f"p_left is a probability, not {self.p_left}")
        if not 0.0 <= self.weight < math.inf:
            raise ValueError(f"weight cannot be {self.weight}")
        if not 0.0 <= self.margin < math.inf:
            raise ValueError(f"margin cannot be {self.margin}")
        if not 0 <= self.strength <= STRONGEST:
            raise ValueError(f"a strength goes from 1 to {STRONGEST}, or is 0, not {self.strength}")
        if not all(rating is None or math.isfinite(rating) for rating in (self.left_rating, self.right_rating)):
            raise ValueError(f"ratings are finite numbers, not {self.left_rating} and {self.right_rating}")

    def swap(self) -> Comparison:
        """The same belief with the sides exchanged."""
        return dataclasses.replace(
            self,
            left=self.right,
            right=self.left,
            p_left=1.0 - self.p_left,
            left_policy=self.right_policy,
            right_policy=self.left_policy,
            left_rating=self.right_rating,
            right_rating=self.left_rating,
        )

    @property
    def chosen(self) -> str:
        """The likelier winner (the left one of a tie)."""
        return self.left if self.p_left >= 0.5 else self.right

    @property
    def rejected(self) -> str:
        """The likelier loser (the right one of a tie)."""
        return self.right if self.p_left >= 0.5 else self.left


@dataclass(frozen=True, slots=True)
class Rating(Record):
    """How strong a policy is, on the Elo scale (400 points: ten to one), with a 95 % interval.

    `rating`, `low` and `high` are None while the policy has no chain of matches to the others.

    >>> Rating("sft", 1000.0, 980.0, 1020.0, matches=120).comparable
    True
    """

    policy: str
    rating: float | None
    low: float | None
    high: float | None
    matches: int

    @property
    def comparable(self) -> bool:
        """Whether the policy can be placed on the common scale yet."""
        return self.rating is not None
