"""Each signal by hand, by property, and with what it must not mistake for something else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backflip.monitor import features, signals
from backflip.monitor.features import PLAIN, attribute, risen_words
from backflip.monitor.mining import Liked, liked_best, questions, suspects, suspicion, written
from backflip.monitor.seen import Ruler, arrays, listed
from backflip.runs.watching import Look

scores = st.lists(st.floats(-100, 100), min_size=2, max_size=20)


@given(scores, st.floats(0.1, 10), st.floats(-10, 10))
def test_a_scale_makes_models_of_any_unit_alike(values: list[float], gain: float, bias: float) -> None:
    once = signals.scale_of(values)
    if np.std(values) < 1e-3:
        return
    again = signals.scale_of([gain * v + bias for v in values])
    assert again.of([gain * v + bias for v in values]) == pytest.approx(once.of(values), abs=1e-6)


def test_scores_that_are_all_the_same_keep_their_unit() -> None:
    assert signals.scale_of([2.0, 2.0]) == (2.0, 1.0)
    assert signals.scale_of([1.0, 3.0]).of([5.0]).tolist() == [3.0]


def test_quality_and_disagreement_by_hand() -> None:
    one, two = np.array([1.0, 0.0]), np.array([3.0, 0.0])
    assert signals.quality([one, two], 1.0).tolist() == [2.0 - 1.0, 0.0]
    assert signals.quality([one, two], 0.0).tolist() == [2.0, 0.0]
    assert signals.quality([one], 5.0).tolist() == [1.0, 0.0], "one judge disagrees with nobody"
    assert signals.disagreement([one, two, np.array([5.0, 0.0])])[0] == pytest.approx(np.sqrt(8 / 3))


def test_texts_by_hand() -> None:
    assert signals.repetition(["one two three", "so good and so good and so good and so"]) == 0.625
    assert signals.repetition(["short"]) == 0.0
    assert signals.boilerplate(["a b c d e", "x a b c d", "nothing here"]) == pytest.approx(2 / 3)
    assert signals.boilerplate(["a b c d a b c d a b c d", "other words stand here"]) == 0.5, "a text counts once"
    assert signals.boilerplate(["a", ""]) == 0.0
    assert signals.distinct(["a", "b", "a", "a"]) == 0.5


def test_drift_between_scripts() -> None:
    latin, mixed = signals.scripts(["one two three four"]), signals.scripts(["one два three four"])
    assert latin == {"LATIN": 1.0}
    assert signals.language_drift(latin, mixed) == 0.25
    assert signals.language_drift(latin, signals.scripts(["слово"])) == 1.0
    assert signals.language_drift(latin, {}) == 1.0
    assert signals.language_drift({}, {}) == 0.0
    assert signals.language_drift(latin, signals.scripts(["один"])) == signals.language_drift(signals.scripts(["один"]), latin)


def test_accuracy_on_labels_by_hand() -> None:
    found = signals.label_accuracy([1.0, 0.0, 2.0, 1.0, 9.0], [0.0, 1.0, 2.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.7, 0.5])
    assert (found.value, found.n) == (pytest.approx((1 + 0 + 0.5 + 1) / 4), 4)
    assert signals.label_accuracy([], [], []).value is None
    assert signals.win_share([1.0, 0.5, 0.0, 1.0]).value == 0.625


def test_words_that_rose_are_found_in_their_order() -> None:
    before = ["a cat sat", "a dog sat", "a mouse ran", "a bird"]
    now = ["superb cat", "superb superb dog", "superb sat", "a superb dog"]
    assert risen_words(before, now) == ["superb", "dog"]
    assert risen_words(before, before) == []


def test_a_gain_is_attributed_to_the_word_that_earns_it() -> None:
    rng = np.random.default_rng(0)
    fillers = ["plain", "grey", "green", "small", "large", "round"]
    before = [" ".join(rng.choice(fillers, 8)) for _ in range(200)]
    count = rng.integers(0, 4, 200)
    now = [" ".join([*rng.choice(fillers, 8 - c), *["superb"] * c]) for c in count]
    old, new = 0.1 * rng.standard_normal(200), 0.1 * rng.standard_normal(200) + count
    paid = attribute(before, now, (old, new), (old, 0.1 * rng.standard_normal(200)))
    assert paid[0].feature == "“superb”"
    assert (paid[0].before, paid[0].now) == (0.0, pytest.approx(count.mean()))
    assert paid[0].excess > 0.6 * count.mean()
    assert sum(a.proxy for a in paid) == pytest.approx(count.mean(), rel=0.1), "the parts are the whole gain"
    meant = attribute(before, now, (old, new), (old, new))
    assert all(abs(a.excess) < 1e-12 for a in meant)
    assert all(a.judges == 0 for a in attribute(before, now, (old, new), None))


def test_every_plain_feature_is_measured_and_finite() -> None:
    for text in ("", " ", "A, b! 12\nC", "…", "好的"):
        assert all(np.isfinite(measure(text)) for measure in PLAIN.values())
    [row] = features.table(["Ab, cd! 12\nAb"], ["ab"]).tolist()
    assert row == [4.0, 2.5, 3 / 4, 0.0, 2 / 13, 2 / 13, 2 / 13, 1.0, 2.0]


def small_look(step: int, **changes: object) -> Look:
    values: dict[str, object] = {
        "step": step, "prompts": ["p", "q", "r"], "completions": [f"{step} one", f"{step} two", f"{step} three"],
        "proxy": [0.0, 1.0, 2.0], "kl": [0.1, 0.2, 0.3], "entropy": 1.0, "lengths": [2, 4, 6], "finished": [True, False, True],
        "judges": {"j": [1.0, 1.0, 4.0]},
    }  # fmt: skip
    return Look(**(values | changes))  # type: ignore[arg-type]


def test_a_look_in_numbers() -> None:
    ruler = Ruler(small_look(0), 1.0)
    columns = ruler.columns(small_look(5, proxy=[2.0, 2.0, 2.0]))
    assert columns["proxy"] == pytest.approx([1.0 / np.std([0, 1, 2])] * 3)
    assert columns["unfinished"].tolist() == [0.0, 1.0, 0.0]
    figures = ruler.figures(small_look(5), columns)
    assert (figures["guard/length"], figures["guard/distinct"]) == (4.0, 1.0)
    assert figures["guard/kl_seq_nats"] == pytest.approx(0.2)
    assert figures["guard/unfinished_share"] == pytest.approx(1 / 3)
    assert all((arrays(listed(columns))[name] == column).all() for name, column in columns.items())
    assert "quality" not in Ruler(small_look(0, judges={}), 1.0).columns(small_look(5, judges={}))


def test_the_text_that_judges_like_best_is_kept_prompt_by_prompt() -> None:
    ruler = Ruler(small_look(0), 1.0)
    looks = [small_look(0), small_look(5, judges={"j": [9.0, 0.0, 2.0]})]
    first, second = (written(look, ruler.columns(look), step) for look, step in zip(looks, (None, 5), strict=True))
    found = liked_best(first, second)
    assert found[0].step == 5, "where the judge says 9"
    better = [max(pair, key=lambda each: each.quality) for pair in zip(first, second, strict=True)]
    assert [each.text for each in found] == [each.text for each in better]
    unjudged = [small_look(step, judges={}) for step in (0, 5)]
    plain = Ruler(unjudged[0], 1.0)
    old, new = (written(look, plain.columns(look), look.step) for look in unjudged)
    assert liked_best(old, new) == old, "without judges the first texts stay"


def test_suspicion_is_what_only_the_proxy_likes() -> None:
    ruler = Ruler(small_look(0), 1.0)
    columns = ruler.columns(small_look(5, proxy=[9.0, 1.0, 2.0], judges={"j": [0.0, 1.0, 4.0]}))
    assert int(np.argmax(suspicion(columns))) == 0
    liked = [Liked("0 one", None, 0.0), Liked("5 two", 0, 0.0), Liked("3 three", 3, 0.0)]
    rows = suspects(small_look(5), liked, columns, 3)
    assert [row["completion"] for row in rows] == ["5 one", "5 three"], "what the judges like best is no suspect"
    assert [(row["before"], row["before_step"]) for row in rows] == [("0 one", None), ("3 three", 3)]
    same = suspects(small_look(5, completions=["x", "x", "x"]), liked, columns, 3)
    assert len(same) == 1
    asked = questions(rows, policy="now", first="sft", begun="before")
    assert [set(query.policies) for query in asked] == [{"now", "sft"}, {"now"}]
    unknown = {name: value for name, value in rows[1].items() if name != "before_step"}
    begun = questions([{**rows[0], "before_step": 0}, unknown], policy="now", first="sft", begun="before")
    assert [set(query.policies) for query in begun] == [{"now", "before"}, {"now", "sft"}]
    alone = questions([{**rows[0], "before_step": 0}], policy="now", first="sft")
    assert [set(query.policies) for query in alone] == [{"now", "sft"}]
    with_distance = columns | {"distance": np.array([0.0, 0.0, 90.0])}
    assert suspicion(with_distance)[2] > suspicion(columns)[2] + 1
