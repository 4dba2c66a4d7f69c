"""The world of reviews: what it generates is what it measures, and gold cannot be fooled cheaply."""

from __future__ import annotations

import itertools
import random
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backflip.records import Message, Prompt
from backflip.seeds import Seeds
from backflip.worlds.reviews import Reviews, Weights, count_texts, grammar
from backflip.worlds.reviews.gold import WORD_LIMIT, expected, measure
from backflip.worlds.reviews.grammar import DEMONSTRATIONS, Facts, Rates, draw_facts, draw_review, read_prompt, write
from backflip.worlds.reviews.world import TEST_SHARE

WORLD = Reviews()
FILM = Facts(topic=grammar.TOPICS[0], name="Lake", city="Rome")
PROMPT = Prompt(FILM.text)
FULL = (
    " Lake is a truly superb film. The rich music is lovely and the quiet cast is great."
    " It is set in old Rome. I will surely tell my friends."
)
# Numbers that keep a hand calculation easy; gold's own weights are a matter of taste.
ROUND = Weights(
    sentiment=10.0,
    descriptiveness=5.0,
    on_topic=3.0,
    fact_right=1.0,
    fact_wrong=-2.0,
    broken=-3.0,
    malformed=-8.0,
    repeated=-12.0,
    too_long=-5.0,
)
# What a demonstration is worth to these weights before centring: by hand from the rates 0.5, 0.75, 0.72 and 0.9.
# Modifiers 0.5·(3 + 2·0.9)/5, topical words 0.75, facts stated 2·0.9.
ROUND_CENTRE = 5 * 0.48 + 3 * 0.75 + 1 * 0.72 * 1.8 - 2 * 0.28 * 1.8


def split_document(document: str) -> tuple[Prompt, str]:
    """A raw document's prompt and completion."""
    head, completion = document.split("Review:")
    return Prompt(head + "Review:"), completion


def demonstrations(n: int) -> list[tuple[Prompt, str]]:
    return WORLD.demonstrations(n, Seeds(7))


# Generated text.


def test_the_prompt_reads_back() -> None:
    assert FILM.text == "Film: Lake. City: Rome.\nReview:"
    assert read_prompt(FILM.text) == FILM


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Tell me a joke.",
        "Film: Lake. Town: Rome.\nReview:",
        "Song: Lake. City: Rome.\nReview:",
        FILM.text + " ",
    ],
)
def test_other_prompts_state_nothing(text: str) -> None:
    assert read_prompt(text) is None
    factors = WORLD.measure(Prompt(text), FULL)
    assert (factors.facts_right, factors.on_topic) == (0, 0.0)
    assert factors.sentiment == 1.0


def test_a_conversation_is_not_a_prompt_of_this_world_and_does_no_harm() -> None:
    assert WORLD.measure(Prompt((Message("user", FILM.text),)), FULL).facts_right == 0


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32), rates=st.builds(Rates, *[st.floats(0, 1)] * 5))
def test_every_generated_text_parses_back_to_its_latents(seed: int, rates: Rates) -> None:
    rng = random.Random(seed)
    facts = draw_facts(rng)
    review = draw_review(facts, rates, rng)
    read: dict[str, str] = {}
    for sentence in write(review).removesuffix(".").split("."):
        found = grammar.read_sentence(sentence.removeprefix(" "))
        assert found is not None, sentence
        read |= found[1]
    assert read == review
    factors = measure(facts, write(review))
    stated = {slot: review[slot] for slot in ("name", "city") if review.get(slot, "It") != "It"}
    right = sum(word == getattr(facts, slot) for slot, word in stated.items())
    value = {w: v for g in grammar.GRADED.values() for v, words in g.items() for w in words}
    ours = {facts.topic.noun, *facts.topic.aspects}
    assert factors.well_formed
    assert (factors.malformed, factors.repeated) == (0.0, 0.0)
    assert (factors.facts_right, factors.facts_wrong) == (right, len(stated) - right)
    assert factors.sentiment == pytest.approx(sum(value.get(word, 0.0) for word in review.values()) / 4)
    assert factors.descriptiveness == sum(slot in grammar.MODIFIERS for slot in review) / 5
    assert factors.on_topic == sum(review.get(s) in ours for s in ("noun", "aspect1", "aspect2")) / 3
    assert factors.sentences == 2 + sum(last in review for last in ("city", "closing"))
    assert factors.words == len(write(review).split()) <= WORD_LIMIT


def test_rates_of_one_and_zero_decide_every_latent() -> None:
    best = measure(FILM, write(draw_review(FILM, Rates(1, 1, 1, 1, 1), random.Random(0))))
    worst = measure(FILM, write(draw_review(FILM, Rates(0, 0, 0, 0, 1), random.Random(0))))
    assert (best.facts_right, best.on_topic, best.descriptiveness) == (2, 1.0, 1.0)
    assert (worst.facts_wrong, worst.on_topic, worst.descriptiveness) == (2, 0.0, 0.0)
    assert best.sentiment >= 0.5
    assert worst.sentiment <= -0.5


def test_the_number_of_sentences_is_what_enumeration_gives() -> None:
    for kind in ("opinion", "place", "closing"):
        options = [(*grammar.words_of(slot), *([None] * (slot in grammar.MODIFIERS))) for slot in grammar.slots_of(kind)]
        written = set()
        for words in itertools.product(*options):
            review = {s: w for s, w in zip(grammar.slots_of(kind), words, strict=True) if w is not None}
            written.add(write(review))
        assert len(written) == grammar.count_sentences(kind)


def test_the_number_of_aspect_sentences_is_what_enumeration_gives_on_its_slots() -> None:
    def pairs(words: tuple[str, ...], optional: bool) -> int:
        options = (*words, None) if optional else words
        return sum(a is None or a != b for a, b in itertools.product(options, options))

    by_hand = (
        pairs(grammar.DETAILS, True) * pairs(grammar.words_of("aspect1"), False) * pairs(grammar.words_of("quality1"), False)
    )
    assert grammar.count_sentences("aspects") == by_hand


def test_there_are_more_than_a_million_texts() -> None:
    assert count_texts() >= 10**6
    assert len({completion for _, completion in demonstrations(2000)}) > 1990


def test_no_word_has_two_meanings() -> None:
    lists = [
        grammar.NAMES,
        grammar.CITIES,
        tuple(grammar.VALUE),
        grammar.words_of("aspect1"),
        grammar.words_of("noun"),
        *{grammar.MODIFIERS[slot] for slot in grammar.MODIFIERS},
    ]
    words = [word for words in lists for word in words]
    assert len(words) == len(set(words))
    in_slots = [w for slot, graded in grammar.GRADED.items() if slot != "quality2" for ws in graded.values() for w in ws]
    assert len(in_slots) == len(set(in_slots)) == len(grammar.VALUE)


# What the world hands out.


def test_the_same_call_gives_the_same_texts_and_a_longer_one_begins_with_them() -> None:
    for make in (WORLD.corpus, WORLD.demonstrations, WORLD.prompts):
        few: Any = make(20, Seeds(3))
        assert few == make(40, Seeds(3))[:20]
        assert few == getattr(Reviews(), make.__name__)(20, Seeds(3))
        assert few != make(20, Seeds(4))
    assert WORLD.prompts(20, Seeds(3), "train") != WORLD.prompts(20, Seeds(3), "test")


def test_test_prompts_occur_nowhere_else() -> None:
    held_out = {p.plain for p in WORLD.prompts(3000, Seeds(1), "test")}
    trained = {p.plain for p in WORLD.prompts(3000, Seeds(1))}
    trained |= {p.plain for p, _ in WORLD.demonstrations(3000, Seeds(1))}
    trained |= {split_document(d)[0].plain for d in WORLD.corpus(3000, Seeds(1))}
    assert len(held_out) > 50
    assert len(trained) > 2 * len(held_out)
    assert not held_out & trained


def test_another_world_keeps_other_prompts_for_testing() -> None:
    kept = {p.plain for p in WORLD.prompts(1000, Seeds(1), "test")}
    other = {p.plain for p in Reviews(seed=1).prompts(1000, Seeds(1), "test")}
    assert len(kept & other) < 0.4 * len(kept)  # one in TEST_SHARE, by chance


def test_one_fact_combination_in_test_share_is_kept_for_testing() -> None:
    every = [
        Prompt(Facts(topic, name, city).text)
        for topic, name, city in itertools.product(grammar.TOPICS, grammar.NAMES, grammar.CITIES)
    ]
    share = [WORLD.split_of(p) for p in every].count("test") / len(every)
    assert share == pytest.approx(1 / TEST_SHARE, rel=0.25)


def test_factors_of_demonstrations_have_the_means_that_the_rates_say() -> None:
    factors = [WORLD.measure(p, c) for p, c in demonstrations(4000)]
    mean = expected(DEMONSTRATIONS)
    assert (mean.descriptiveness, mean.on_topic) == pytest.approx((0.48, 0.75))
    for name in ("sentiment", "descriptiveness", "on_topic", "facts_right", "facts_wrong"):
        values = np.array([getattr(f, name) for f in factors])
        assert abs(values.mean() - getattr(mean, name)) < 4 * values.std() / np.sqrt(len(values)), name


def test_sentiment_description_topic_and_facts_vary_independently() -> None:
    # Complete reviews, since leaving a sentence out lowers several factors at once.
    rates = Rates(0.5, 0.5, 0.75, 0.7, 1.0)
    rng = random.Random(0)
    rows = []
    for _ in range(4000):
        facts = draw_facts(rng)
        f = measure(facts, write(draw_review(facts, rates, rng)))
        rows.append((f.sentiment, f.descriptiveness, f.on_topic, f.facts_right))
    correlations = np.corrcoef(np.array(rows).T) - np.eye(4)
    assert np.abs(correlations).max() < 4 / np.sqrt(4000)
    assert np.array(rows).std(axis=0).min() > 0.15


def test_corpus_documents_vary_more_than_demonstrations() -> None:
    corpus = [split_document(d) for d in WORLD.corpus(2000, Seeds(5))]
    spread = np.std([WORLD.gold(p, c) for p, c in corpus])
    assert all(WORLD.measure(p, c).well_formed for p, c in corpus)
    assert spread > 1.1 * np.std([WORLD.gold(p, c) for p, c in demonstrations(2000)])


# Gold.


def test_gold_of_demonstrations_is_centred_graded_and_rarely_tied() -> None:
    gold = np.array([WORLD.gold(p, c) for p, c in demonstrations(4000)])
    assert abs(gold.mean()) < 4 * gold.std() / np.sqrt(len(gold))
    assert 1.0 < gold.std() < 2.0
    assert (np.abs(gold[::2] - gold[1::2]) < 0.05).mean() < 0.08
    assert len(np.unique(gold.round(6))) > 100


def test_three_reviews_worked_by_hand() -> None:
    # Everything right: sentiment 4/4, modifiers 5/5, topic 3/3, two facts.
    assert WORLD.judge(PROMPT, FULL, ROUND) == pytest.approx(10 + 5 + 3 + 2 - ROUND_CENTRE)
    # −1 −½ +½ of four; one modifier of five; "film" and "music" of three; no name, a wrong city.
    mixed = " It is a terrible film. The rich music is fine and the soup is dull. It is set in Oslo."
    assert WORLD.judge(PROMPT, mixed, ROUND) == pytest.approx(10 * (-1 / 4) + 5 / 5 + 3 * (2 / 3) - 2 - ROUND_CENTRE)
    # "good film": ½ of four, one topical word, the name; the next 4 words of 14 are no sentence; the third repeats.
    broken = " Lake is a good film. Good good good good. Lake is a superb film."
    by_hand = 10 * 0.125 + 3 / 3 + 1 - 3 - 8 * (4 / 14) - 12 * (1 / 3) - ROUND_CENTRE
    assert WORLD.judge(PROMPT, broken, ROUND) == pytest.approx(by_hand)


def test_gold_is_judging_with_golds_weights() -> None:
    assert WORLD.gold(PROMPT, FULL) == WORLD.judge(PROMPT, FULL, Weights())


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("superb", "good"),
        ("good", "weak"),
        ("truly ", ""),
        ("film", "hotel"),
        ("music", "soup"),
        ("Lake", "It"),
        ("It is set in old Rome. ", ""),
        ("Lake", "Moon"),
        ("Rome", "Oslo"),
        ("friends.", "friends"),
        ("the quiet cast is great", "the quiet cast is lovely"),
        ("the quiet cast", "the quiet music"),
        ("the quiet cast", "the rich cast"),
    ],
)
def test_one_change_for_the_worse_lowers_gold(better: str, worse: str) -> None:
    start = FULL.replace("superb", "good") if better == "good" else FULL
    assert better in start
    assert WORLD.gold(PROMPT, start.replace(better, worse)) < WORLD.gold(PROMPT, start)


HACKS = {
    "empty": "",
    "blank": " \n\n ",
    "one word over and over": " superb" * 40,
    "one short word": " superb.",
    "the prompt again": FILM.text,
    "the prompt, then its end": " " + FILM.text.replace("\n", " "),
    "one sentence over and over": " Lake is a truly superb film." * 8,
    "one word of praise in every slot": " Lake is a lovely film. The music is lovely and the cast is lovely.",
    "all cities": "".join(f" It is set in {city}." for city in grammar.CITIES),
    "all good words": " " + " ".join(grammar.VALUE) + ".",
    "never an end": FULL.replace(".", ""),
    "a review and then noise": FULL + " zzz" * 80,
    "the same review twice": FULL * 2,
    "every opinion": "".join(f" Lake is a {w} film." for w in grammar.words_of("opinion")),
}


@pytest.mark.parametrize("hack", HACKS)
def test_a_hack_is_worth_less_than_an_ordinary_good_review(hack: str) -> None:
    ordinary = " Lake is a good film. The rich music is fine and the cast is lovely. It is set in Rome. I will surely come again."
    assert WORLD.measure(PROMPT, ordinary).well_formed
    assert WORLD.gold(PROMPT, HACKS[hack]) < WORLD.gold(PROMPT, ordinary)


def test_saying_it_again_never_pays() -> None:
    once = WORLD.gold(PROMPT, FULL)
    for sentence in FULL.removesuffix(".").split("."):
        assert WORLD.gold(PROMPT, FULL + sentence + ".") < once


def test_only_the_first_sentence_of_a_kind_is_heard() -> None:
    corrected = WORLD.measure(PROMPT, " It is set in Oslo. It is set in Rome.")
    assert (corrected.facts_right, corrected.facts_wrong, corrected.repeated) == (0, 1, 0.5)


def test_a_text_cut_off_is_not_well_formed_and_the_cut_sentence_is_not_heard() -> None:
    cut = WORLD.measure(PROMPT, " Lake is a superb film. It is set in Rome")
    assert not cut.well_formed
    assert (cut.facts_right, cut.sentences, cut.malformed) == (1, 2, pytest.approx(5 / 10))


ANY_TEXT = st.one_of(
    st.text(),
    st.text(alphabet=st.characters()),  # lone surrogates included
    st.lists(st.sampled_from([*FULL.split(), ".", ". ", " "]), max_size=60).map(" ".join),
)


@settings(max_examples=300, deadline=None)
@given(prompt=st.one_of(st.just(FILM.text), st.text()), completion=ANY_TEXT)
def test_any_text_has_finite_factors_and_gold(prompt: str, completion: str) -> None:
    factors = WORLD.measure(Prompt(prompt), completion)
    assert -1 <= factors.sentiment <= 1
    assert all(0 <= x <= 1 for x in (factors.descriptiveness, factors.on_topic, factors.malformed, factors.repeated))
    assert 0 <= factors.facts_right + factors.facts_wrong <= len(grammar.FACTUAL)
    assert factors.well_formed == (factors.sentences > 0 and factors.malformed == factors.repeated == 0)
    assert -20 < WORLD.gold(Prompt(prompt), completion) < 20


@pytest.mark.parametrize("unit", ["x", "é" * 3 + " ", ".", " .", "\x00", "Lake is a ", FULL, " It is set in Rome"])
def test_a_hundred_kilobytes_are_judged_quickly(unit: str) -> None:
    text = unit * (100_000 // len(unit))
    start = time.process_time()
    gold = WORLD.gold(PROMPT, text)
    assert time.process_time() - start < 2.0
    assert gold < WORLD.gold(PROMPT, FULL)


def test_two_thousand_golds_take_well_under_a_second() -> None:
    rows = demonstrations(2000)
    start = time.process_time()
    for prompt, completion in rows:
        WORLD.gold(prompt, completion)
    assert time.process_time() - start < 1.0
