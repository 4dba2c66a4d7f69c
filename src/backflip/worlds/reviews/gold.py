"""What is true of a review (`measure`) and what it is worth (`utility`): the hidden truth of the world.

`measure` reads arbitrary text sentence by sentence. What the grammar does not recognise counts as malformed, by its
share of the words, and says nothing. Of several sentences of one kind only the first is heard, and a word of
judgement, a modifier or an aspect is heard once: saying it again adds nothing, and repeated sentences cost.
"""

from __future__ import annotations

from dataclasses import dataclass

from backflip.worlds.reviews import grammar

# How many slots of judgement, of description and of topic a full review fills.
N_JUDGEMENTS, N_MODIFIERS, N_TOPICAL = (len(slots) for slots in (grammar.GRADED, grammar.MODIFIERS, grammar.TOPICAL))
# No text of the grammar is longer.
WORD_LIMIT = 40


@dataclass(frozen=True, slots=True)
class Factors:
    """What is true of one review.

    Every share is of a FULL review's slots, so leaving a sentence out never raises one. `sentiment` is the sum of the
    judgements' values over their slots, in [−1, 1]; `descriptiveness` the filled optional modifiers over theirs;
    `on_topic` the topical words of the prompt's topic over theirs. Of the prompt's facts, `facts_right` are stated as
    in the prompt, `facts_wrong` otherwise, the rest not at all. `malformed` is the share of words in sentences the
    grammar does not have (1 for a text without words); `repeated` the share of sentences of a kind, or with a text,
    that stood there before. `well_formed`: at least one sentence, none malformed, none repeated.
    """

    sentiment: float
    descriptiveness: float
    on_topic: float
    facts_right: int
    facts_wrong: int
    words: int
    sentences: int
    well_formed: bool
    malformed: float
    repeated: float


@dataclass(frozen=True, slots=True)
class Mean:
    """Expected factors of a kind of text."""

    sentiment: float
    descriptiveness: float
    on_topic: float
    facts_right: float
    facts_wrong: float


def expected(rates: grammar.Rates) -> Mean:
    """The mean factors of texts drawn with `rates`, exactly: a slot is filled with the probability of its sentence.

    >>> expected(grammar.Rates(positive=1, descriptive=1, on_topic=1, right=1, complete=1.0))
    Mean(sentiment=0.75, descriptiveness=1.0, on_topic=1.0, facts_right=2.0, facts_wrong=0.0)
    """
    there = {
        slot: rates.complete if kind in grammar.OPTIONAL or slot == "name" else 1.0
        for kind in grammar.TEMPLATES
        for slot in grammar.slots_of(kind)
    }
    judgements, modifiers, topical, stated = (
        sum(there[slot] for slot in slots) for slots in (grammar.GRADED, grammar.MODIFIERS, grammar.TOPICAL, grammar.FACTUAL)
    )
    return Mean(
        sentiment=0.75 * (2.0 * rates.positive - 1.0) * judgements / N_JUDGEMENTS,  # mild is ½, strong is 1
        descriptiveness=rates.descriptive * modifiers / N_MODIFIERS,
        on_topic=rates.on_topic * topical / N_TOPICAL,
        facts_right=rates.right * stated,
        facts_wrong=(1.0 - rates.right) * stated,
    )


TYPICAL = expected(grammar.DEMONSTRATIONS)


@dataclass(frozen=True, slots=True)
class Weights:
    """What a judge cares about. The defaults are gold's; its standard deviation on demonstrations is near 1.5."""

    sentiment: float = 3.0
    descriptiveness: float = 1.2
    on_topic: float = 1.0
    fact_right: float = 0.15
    fact_wrong: float = -0.15
    broken: float = -0.5
    malformed: float = -2.0
    repeated: float = -2.0
    too_long: float = -2.0
    long: float = 0.0


def measure(facts: grammar.Facts | None, completion: str) -> Factors:
    """The factors of any text as a review of `facts` (None: an unknown prompt, nothing is right or on topic).

    Time is linear in the length of the text; never raises.
    """
    *closed, tail = completion.split(".")
    pieces = [piece.removeprefix(" ") for piece in closed] + ([tail] if tail.strip() else [])
    heard: grammar.Slots = {}
    seen: set[str] = set()
    n_repeated = n_malformed_words = 0
    for i, piece in enumerate(pieces):
        found = grammar.read_sentence(piece) if i < len(closed) else None
        kind, slots = found or (piece, {})
        if found is None:
            n_malformed_words += max(1, len(piece.split()))
        if kind in seen:
            n_repeated += 1
        else:
            seen.add(kind)
            heard |= slots
    n_words = len(completion.split())
    malformed = min(1.0, n_malformed_words / n_words) if n_words else 1.0
    return Factors(
        sentiment=_sentiment(heard),
        descriptiveness=_descriptiveness(heard),
        on_topic=_on_topic(heard, facts),
        facts_right=sum(_fact(heard, slot, facts) == 1 for slot in grammar.FACTUAL),
        facts_wrong=sum(_fact(heard, slot, facts) == -1 for slot in grammar.FACTUAL),
        words=n_words,
        sentences=len(pieces),
        well_formed=bool(pieces) and not n_malformed_words and not n_repeated,
        malformed=malformed,
        repeated=n_repeated / max(1, len(pieces)),
    )


def _sentiment(heard: grammar.Slots) -> float:
    said = {heard[slot] for slot in grammar.GRADED if slot in heard}
    return sum(grammar.VALUE[word] for word in sorted(said)) / N_JUDGEMENTS


def _descriptiveness(heard: grammar.Slots) -> float:
    return len({heard[slot] for slot in grammar.MODIFIERS if slot in heard}) / N_MODIFIERS


def _on_topic(heard: grammar.Slots, facts: grammar.Facts | None) -> float:
    if facts is None:
        return 0.0
    said = {heard[s] for s in grammar.TOPICAL if s in heard and grammar.belongs(heard[s], s, facts.topic)}
    return len(said) / N_TOPICAL


def _fact(heard: grammar.Slots, slot: str, facts: grammar.Facts | None) -> int:
    """+1 right, −1 wrong, 0 not stated."""
    word = heard.get(slot, grammar.NAMELESS)
    if word == grammar.NAMELESS:
        return 0
    return 1 if facts is not None and word == getattr(facts, slot) else -1


def utility(factors: Factors, weights: Weights) -> float:
    """What a review with these factors is worth to a judge with these weights.

    u = w_sentiment·sentiment + w_descriptiveness·descriptiveness + w_on_topic·on_topic
        + w_right·#right + w_wrong·#wrong
        + w_broken·[not well formed] + w_malformed·malformed + w_repeated·repeated
        + w_too_long·excess + w_long·(words/WORD_LIMIT, at most 1)

    where the first three factors and the two counts are taken relative to their mean on demonstrations (TYPICAL), so
    that gold is 0 there on average, and excess = (words − 40)/40 between 0 and 1. Every term is bounded, so u is
    finite for any text.
    """
    excess = min(1.0, max(0.0, factors.words / WORD_LIMIT - 1.0))
    return (
        weights.sentiment * (factors.sentiment - TYPICAL.sentiment)
        + weights.descriptiveness * (factors.descriptiveness - TYPICAL.descriptiveness)
        + weights.on_topic * (factors.on_topic - TYPICAL.on_topic)
        + weights.fact_right * (factors.facts_right - TYPICAL.facts_right)
        + weights.fact_wrong * (factors.facts_wrong - TYPICAL.facts_wrong)
        + weights.broken * (not factors.well_formed)
        + weights.malformed * factors.malformed
        + weights.repeated * factors.repeated
        + weights.too_long * excess
        + weights.long * min(1.0, factors.words / WORD_LIMIT)
    )
