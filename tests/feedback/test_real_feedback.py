"""Real people's answers: model arenas, sliders, harmless replies, and verifiers of sums; each beside what costs nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.feedback import figures

from backflip.arena import standings
from backflip.feedback.votes import read_votes
from backflip.records import Query, Verdict
from backflip.seeds import Seeds
from backflip.store import Store
from backflip.store.projects import Projects


@pytest.mark.realdata
def test_ratings_of_llmfao_beside_other_algorithms(shared_data: Path) -> None:
    found = figures.arena(shared_data)
    assert not found["regularised"]
    r = found["correlation"]
    assert r["bradley_terry"] == r["newman"] == pytest.approx(1.0)
    assert found["largest"]["bradley_terry"] == 0
    assert min(r["elo"], r["average_win_rate"]) > 0.9
    # These count games as well as wins, or have another sign: no agreement is to be expected.
    assert max(r["counting"], r["pagerank"], r["eigen"]) < 0.5
    assert r["noisy Bradley–Terry, ours"] > 0.95
    assert found["ranks"][found["names"].index("GPT 4")] == 0
    noisy = found["noisy"]
    assert noisy.converged
    assert noisy.reliability_R.min() < 0.3 < 0.6 < noisy.reliability_R.max(), "some workers hardly judge"


@pytest.mark.realdata
def test_llmfao_as_a_store(shared_data: Path, tmp_path: Path) -> None:
    found = figures.arena_overview(shared_data, tmp_path)
    assert (found.questions, found.answers, len(found.quality.raters)) == (2139, 8931, 124)
    alpha, first, circles = found.quality.alpha_nominal, found.habits[0].first, found.circles
    assert alpha.low is not None
    assert 0.25 < alpha.low < 0.33
    assert first.low is not None
    assert first.low > 0, "what stood on the left won a little more often"
    assert found.habits[0].longer.value is None, "names of models have no length that means anything"
    assert circles is not None
    assert circles.p is not None
    assert circles.p > 0.05, "no more circles than one scale of strengths and luck make"


@pytest.mark.realdata
def test_an_undefeated_model_and_models_that_never_met_get_a_sentence(shared_data: Path, tmp_path: Path) -> None:
    entries = read_votes(shared_data / "llmfao.csv", purpose="arena", sides_are_policies=True).entries
    queries = {e.id: e for _, e in entries if isinstance(e, Query)}
    few = ("GPT 4", "Falcon Instruct (7B)", "Weaver 12k", "Alpaca (7B)")

    def told(name: str, keep: object) -> str:
        """The notes of an arena of four models with some of the verdicts."""
        with Store(tmp_path / f"{name}.db") as store:
            some = [
                (where, e) for where, e in entries
                if set(queries[e.id if isinstance(e, Query) else e.query_id].policies) <= set(few)  # type: ignore[union-attr]
                and (isinstance(e, Query) or keep(e))  # type: ignore[operator]
            ]  # fmt: skip
            Projects(store).add_entries(some, by="test")
            return " ".join(standings(store, seeds=Seeds(0), resamples=10).notes)

    def unbeaten(verdict: Verdict) -> bool:
        names = queries[verdict.query_id].policies
        return "GPT 4" not in names or verdict.choice == ("left" if names[0] == "GPT 4" else "right")

    def apart(verdict: Verdict) -> bool:
        names = queries[verdict.query_id].policies
        return ("GPT 4" in names) == ("Weaver 12k" in names)

    assert "undefeated" not in told("all", lambda verdict: True)
    assert "undefeated" in told("unbeaten", unbeaten)
    assert "share no matches" in told("apart", apart)


@pytest.mark.realdata
@pytest.mark.slow
def test_one_normal_distribution_does_not_explain_most_items_of_nli_variation(shared_data: Path) -> None:
    """Held-out likelihood of one to three components, five folds, labels normed for each annotator, floor 0.15."""
    found = figures.sliders(shared_data)
    assert found["tasks"] == ["dnc", "joci", "mnli", "rte2", "snli"]
    assert found["best"][1].n == 496
    assert found["best"][1].value == pytest.approx(0.34, abs=0.05)
    assert 0.3 < found["bimodal"].low < found["bimodal"].high < 0.55
    assert found["bimodal by luck"].high < found["bimodal"].low, "one opinion and scatter do not look like this"


@pytest.mark.realdata
def test_words_alone_beside_length_and_chance(shared_data: Path) -> None:
    found = figures.harmless(shared_data)
    assert found["hh: words alone, five-fold"].low > 0.5
    assert found["hh: the shorter reply"].value == pytest.approx(0.553, abs=0.03)
    assert found["hh: the shorter reply"].low > 0.5
    for name in ("hhh: words of all hh", "hhh: the shorter text"):
        assert 0.3 < found[name].low < found[name].high < 0.75, "neither comes near the 86 % of a large preference model"


@pytest.mark.realdata
def test_verifiers_of_gsm8k(shared_data: Path) -> None:
    found = figures.verifiers(shared_data)
    small, large, across = found.values()
    assert [round(100 * share.value, 1) for pair in (small, large) for share in pair[:2] if share.value is not None] == [
        21.7, 39.0, 34.7, 56.3,
    ]  # fmt: skip
    assert (large.gained, large.lost) == (360, 76)
    assert min(small.low, large.low) > 0.14
    assert max(small.p, large.p) < 1e-20
    assert across.low > 0, "the small model with a verifier beats the large one alone"
