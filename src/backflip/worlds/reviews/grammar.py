"""The grammar of the reviews: four kinds of sentence, the words of each slot, drawing one, writing it, reading it.

One template per kind of sentence serves both ways: `write` fills it and `read` is a regular expression made from it,
so what the world generates and what it recognises cannot drift apart. A review is a dictionary from slot to word;
an optional slot left empty is absent from it.

    opinion   Lake is a (truly) superb film.
    aspects   The (rich) music is lovely and the (quiet) acting is dull.
    place     It is set in (old) Rome.
    closing   I will (surely) come again.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

Slots = dict[str, str]

# The facts of a prompt: short common words that a small vocabulary spells in one token each, and few enough that a tiny
# model learns within a minute to copy them.
# fmt: off
NAMES = (
    "Lake", "Moon", "Rose", "Bird", "Road", "Star", "Wolf", "Tree",
    "King", "Sea", "Rain", "Fire", "Gate", "Bell", "Stone", "River",
    "Ship", "Hand", "Snow", "Wind", "Hill", "Leaf", "Sand", "Sun",
)
CITIES = (
    "Rome", "Oslo", "Lima", "Bern", "Riga", "Baku", "Doha", "Bonn",
    "Nice", "York", "Cairo", "Delhi", "Paris", "Tokyo", "Turin", "Milan",
    "Kyiv", "Lyon", "Cork", "Bath", "Minsk", "Quito", "Accra", "Hanoi",
)
# fmt: on
NAMELESS = "It"


@dataclass(frozen=True, slots=True)
class Topic:
    """What is reviewed: the heading of the prompt and the aspects that belong to it."""

    heading: str
    aspects: tuple[str, ...]

    @property
    def noun(self) -> str:
        """The topic as it stands in a sentence."""
        return self.heading.lower()


TOPICS = (
    Topic("Film", ("acting", "music", "cast", "ending")),
    Topic("Book", ("plot", "prose", "hero", "style")),
    Topic("Restaurant", ("food", "soup", "bread", "wine")),
    Topic("Hotel", ("room", "bed", "pool", "view")),
)

# Words of judgement by how good they call the thing; every slot has as many good words as bad ones.
Graded = Mapping[float, tuple[str, ...]]
OPINIONS: Graded = {1.0: ("superb",), 0.5: ("good",), -0.5: ("weak",), -1.0: ("terrible",)}
QUALITIES: Graded = {1.0: ("lovely", "great"), 0.5: ("fine", "warm"), -0.5: ("dull", "bland"), -1.0: ("ugly", "awful")}
CLOSINGS: Graded = {1.0: ("tell my friends",), 0.5: ("come again",), -0.5: ("stay away",), -1.0: ("warn my friends",)}

DETAILS = ("modern", "classic", "simple", "quiet", "rich", "long", "small", "soft")
GRADED: Mapping[str, Graded] = {
    "opinion": OPINIONS,
    "quality1": QUALITIES,
    "quality2": QUALITIES,
    "closing": CLOSINGS,
}
MODIFIERS: Mapping[str, tuple[str, ...]] = {
    "intensity": ("very", "truly", "quite", "rather"),
    "detail1": DETAILS,
    "detail2": DETAILS,
    "scenery": ("old", "sunny", "rainy", "busy"),
    "certainty": ("surely", "always", "simply", "soon"),
}
_ASPECTS = tuple(word for topic in TOPICS for word in topic.aspects)
TOPICAL: Mapping[str, tuple[str, ...]] = {
    "noun": tuple(topic.noun for topic in TOPICS),
    "aspect1": _ASPECTS,
    "aspect2": _ASPECTS,
}
FACTUAL: Mapping[str, tuple[str, ...]] = {"name": NAMES, "city": CITIES}
VALUE: Mapping[str, float] = {w: value for graded in GRADED.values() for value, ws in graded.items() for w in ws}

# `[slot]` may stay empty. The order is the order of a review.
TEMPLATES: Mapping[str, str] = {
    "opinion": "<name> is a [intensity] <opinion> <noun>",
    "aspects": "The [detail1] <aspect1> is <quality1> and the [detail2] <aspect2> is <quality2>",
    "place": "It is set in [scenery] <city>",
    "closing": "I will [certainty] <closing>",
}
# The optional kinds; the other two stand in every review.
OPTIONAL = ("place", "closing")


def words_of(slot: str) -> tuple[str, ...]:
    """Every word (or fixed phrase) that may stand in `slot`."""
    if slot == "name":
        return (*NAMES, NAMELESS)
    if slot in GRADED:
        return tuple(word for words in GRADED[slot].values() for word in words)
    return {**MODIFIERS, **TOPICAL, **FACTUAL}[slot]


def slots_of(kind: str) -> tuple[str, ...]:
    """The slots of a kind of sentence, in order."""
    return tuple(part[1:-1] for part in TEMPLATES[kind].split() if part[0] in "<[")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a prompt states.

    >>> Facts(TOPICS[0], "Lake", "Rome").text
    'Film: Lake. City: Rome.\\nReview:'
    """

    topic: Topic
    name: str
    city: str

    @property
    def text(self) -> str:
        """The prompt."""
        return f"{self.topic.heading}: {self.name}. City: {self.city}.\nReview:"


_PROMPT = re.compile(r"(\w+): (\w+)\. City: (\w+)\.\nReview:")


@lru_cache(maxsize=4096)
def read_prompt(text: str) -> Facts | None:
    """The facts a prompt states; None when the text is not a prompt of this world."""
    match = _PROMPT.fullmatch(text)
    topic = next((t for t in TOPICS if match and t.heading == match[1]), None)
    if match is None or topic is None:
        return None
    return Facts(topic, match[2], match[3])


@dataclass(frozen=True, slots=True)
class Rates:
    """How a kind of text is drawn: independent probabilities, one per slot it concerns.

    `positive`: a word of judgement praises (mild and strong are equally likely). `descriptive`: an optional modifier
    is there. `on_topic`: a topical word belongs to the prompt's topic (else to one of the others). `right`: a fact
    that is stated is the prompt's. `complete`: an optional sentence is there, and the name is named.
    """

    positive: float
    descriptive: float
    on_topic: float
    right: float
    complete: float


# Decent, not perfect: what a policy is fine-tuned on, on average, with room left in every direction.
DEMONSTRATIONS = Rates(positive=0.5, descriptive=0.5, on_topic=0.75, right=0.72, complete=0.9)


def draw_facts(rng: random.Random) -> Facts:
    """Facts drawn uniformly."""
    return Facts(rng.choice(TOPICS), rng.choice(NAMES), rng.choice(CITIES))


def draw_review(facts: Facts, rates: Rates, rng: random.Random) -> Slots:
    """The slots of one review of `facts`; no detail, aspect or quality is used twice."""
    review: Slots = {}
    for kind in TEMPLATES:
        if kind in OPTIONAL and rng.random() >= rates.complete:
            continue
        for slot in slots_of(kind):
            word = _draw_word(slot, facts, rates, rng, used=tuple(review.values()))
            if word is not None:
                review[slot] = word
    return review


def _draw_word(slot: str, facts: Facts, rates: Rates, rng: random.Random, used: Sequence[str]) -> str | None:
    if slot in MODIFIERS:
        return _fresh(MODIFIERS[slot], used, rng) if rng.random() < rates.descriptive else None
    if slot in GRADED:
        sign = 1.0 if rng.random() < rates.positive else -1.0
        return _fresh(GRADED[slot][sign * rng.choice((0.5, 1.0))], used, rng)
    if slot in TOPICAL:
        ours = rng.random() < rates.on_topic
        topic = facts.topic if ours else rng.choice([t for t in TOPICS if t != facts.topic])
        return _fresh(_topical(topic, slot), used, rng)
    if slot == "name" and rng.random() >= rates.complete:
        return NAMELESS
    truth: str = getattr(facts, slot)
    return truth if rng.random() < rates.right else _fresh(FACTUAL[slot], (truth,), rng)


def _topical(topic: Topic, slot: str) -> tuple[str, ...]:
    return (topic.noun,) if slot == "noun" else topic.aspects


def belongs(word: str, slot: str, topic: Topic) -> bool:
    """Whether a topical word is one of `topic`'s."""
    return word in _topical(topic, slot)


def _fresh(words: Sequence[str], used: Sequence[str], rng: random.Random) -> str:
    return rng.choice([word for word in words if word not in used])


def write(review: Mapping[str, str]) -> str:
    """The completion: the sentences whose slots are filled, in the order of TEMPLATES, after one space.

    >>> write({"name": "Lake", "opinion": "superb", "noun": "film", "certainty": "surely",
    ...        "closing": "come again"})
    ' Lake is a superb film. I will surely come again.'
    """
    sentences = (_fill(t, review) for kind, t in TEMPLATES.items() if slots_of(kind)[-1] in review)
    return "".join(f" {sentence}." for sentence in sentences)


def _fill(template: str, review: Mapping[str, str]) -> str:
    words = (review.get(part[1:-1]) if part[0] in "<[" else part for part in template.split())
    return " ".join(word for word in words if word is not None)


def _pattern(template: str) -> re.Pattern[str]:
    regex = ""
    for part in template.split():
        if part[0] not in "<[":
            regex += part + " "
            continue
        slot = part[1:-1]
        group = f"(?P<{slot}>{'|'.join(map(re.escape, words_of(slot)))})"
        regex += f"(?:{group} )?" if part[0] == "[" else f"{group} "
    return re.compile(regex.removesuffix(" "))


_PATTERNS = {kind: _pattern(template) for kind, template in TEMPLATES.items()}


def read_sentence(sentence: str) -> tuple[str, Slots] | None:
    """The kind and the slots of one sentence without its full stop; None when the grammar has no such sentence.

    >>> read_sentence("It is set in old Rome")
    ('place', {'scenery': 'old', 'city': 'Rome'})
    >>> read_sentence("It is set in Rome old")
    """
    for kind, pattern in _PATTERNS.items():
        match = pattern.fullmatch(sentence)
        if match:
            return kind, {slot: word for slot, word in match.groupdict().items() if word is not None}
    return None


def count_sentences(kind: str) -> int:
    """How many different sentences of a kind the world can generate."""
    if kind == "aspects":  # no detail, aspect or quality twice in one sentence
        details = len(DETAILS)
        aspects, qualities = len(_ASPECTS), len(words_of("quality1"))
        return aspects * (aspects - 1) * qualities * (qualities - 1) * (1 + 2 * details + details * (details - 1))
    return math.prod(len(words_of(slot)) + (slot in MODIFIERS) for slot in slots_of(kind))


def count_texts() -> int:
    """How many different completions the grammar can generate."""
    return math.prod(count_sentences(kind) + (kind in OPTIONAL) for kind in TEMPLATES)
