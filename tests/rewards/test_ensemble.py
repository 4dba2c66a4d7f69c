"""Several reward models as one: how scores are combined, what is kept on disk, and that a policy can be improved against it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny_models import PROMPTS, small_ppo, tiny, vowels

import backflip as bf
from backflip.errors import ConfigError, ModelError
from backflip.records import Comparison, Prompt
from backflip.rewards import Ensemble, RewardModel, load_reward, parse_rewards
from backflip.rewards.ensemble import combined, pair_disagreement
from backflip.runs import Run
from backflip.runs.logs import read_lines
from backflip.seeds import Seeds
from backflip.settings import Members, Optim, Reward
from backflip.train.comparisons import split_questions
from backflip.train.fitting import drawn, fit
from backflip.train.online import improve

torch.set_num_threads(1)

TEXTS = [" was good.", " and saw a dog.", "", "the plot"]
SAID = ["the film", "a cat sat on the mat", "no", ""]


def members(n: int = 3) -> list[RewardModel]:
    made = [RewardModel.from_policy(tiny(), seeds=Seeds(k), max_length=48) for k in range(n)]
    for model in made:
        model.normalize(model(SAID, TEXTS))
        model.fold()
    return made


def test_combining_by_hand() -> None:
    scores_KB = torch.tensor([[1.0, 2.0], [3.0, 2.0], [5.0, -1.0]], dtype=torch.float64)
    assert combined(scores_KB, "mean").tolist() == [3.0, 1.0]
    assert combined(scores_KB, "worst").tolist() == [1.0, -1.0]
    assert combined(scores_KB, "uncertainty", 0.3).tolist() == pytest.approx([3 - 0.3 * 8 / 3, 1 - 0.3 * 2])
    with pytest.raises(ValueError, match="a table of members by completions"):
        combined(scores_KB[0], "mean")
    gaps = torch.tensor([[2.0], [2.0]]), torch.tensor([[1.0], [1.0]])
    assert pair_disagreement(*gaps).item() == 0.0
    opposed = pair_disagreement(torch.tensor([[50.0], [-50.0]]), torch.zeros(2, 1))
    assert opposed.item() == pytest.approx(0.5)


@given(st.lists(st.lists(st.floats(-9, 9), min_size=3, max_size=3), min_size=1, max_size=5), st.floats(0, 3))
def test_caution_never_scores_above_the_mean_and_one_member_is_itself(table: list[list[float]], weight: float) -> None:
    scores_KB = torch.tensor(table, dtype=torch.float64)
    mean, worst = combined(scores_KB, "mean"), combined(scores_KB, "worst")
    careful = combined(scores_KB, "uncertainty", weight)
    assert bool((careful <= mean + 1e-12).all())
    assert bool((worst <= mean + 1e-12).all())
    assert combined(scores_KB, "uncertainty", 0.0).tolist() == mean.tolist()
    assert combined(scores_KB[:1], "worst").tolist() == table[0]
    assert combined(scores_KB.flip(0), "uncertainty", weight).tolist() == pytest.approx(careful.tolist(), abs=1e-9)


def test_an_ensemble_is_a_reward_function_and_tells_how_far_its_members_differ() -> None:
    one = Ensemble(members(), combine="worst")
    alone = torch.tensor([member(SAID, TEXTS) for member in one.members], dtype=torch.float64)
    assert one(SAID, TEXTS) == alone.min(0).values.tolist()
    assert one.metrics["ensemble/std"] == pytest.approx(alone.std(0, unbiased=False).mean().item())
    assert Ensemble(members(1))(SAID, TEXTS) == pytest.approx(members(1)[0](SAID, TEXTS))
    assert one([], []) == []
    with pytest.raises(ConfigError, match="at least one member"):
        Ensemble([])


def test_what_is_saved_is_what_is_loaded_and_each_member_is_an_ordinary_classifier(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    made = Ensemble(members(2), combine="uncertainty", uncertainty=0.25)
    made.save(tmp_path)
    loaded = load_reward(tmp_path, device="cpu")
    assert isinstance(loaded, Ensemble)
    assert (loaded.combine, loaded.uncertainty) == ("uncertainty", 0.25)
    assert loaded(SAID, TEXTS) == made(SAID, TEXTS)
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "member1").config.num_labels == 1
    assert isinstance(load_reward(tmp_path / "member0", device="cpu"), RewardModel)
    named = parse_rewards([f"{tmp_path}:2"], load_model=load_reward)
    assert named(SAID, TEXTS) == pytest.approx([2 * score for score in made(SAID, TEXTS)])
    (tmp_path / "ensemble.json").write_text('{"members": 2, "combine": "best", "uncertainty": 1}')
    with pytest.raises(ModelError, match=r"ensemble\.json cannot be read: combine 'best'"):
        load_reward(tmp_path)


# ------------------------------------------------------------------------------------------------------- fitting

FIT = Reward(
    batch_size=8, epochs=2.0, holdout=0.25, max_length=48, normalization_samples=40, log_every=1, save_every=2,
    optim=Optim(learning_rate=5e-3, adam_eps=1e-8, adam_eps_convention="torch"), ensemble=Members(members=3, bootstrap=True),
)  # fmt: skip


def opinions(n: int = 60) -> list[Comparison]:
    return [Comparison(Prompt(f"film {i}"), "zz" + "a" * (i % 3), "e" * (1 + i % 4), p_left=1.0) for i in range(n)]


def test_members_learn_from_draws_of_their_own_and_nobody_from_what_is_held_out(tmp_path: Path) -> None:
    told = opinions()
    with Run.open(tmp_path / "run", kind="reward", settings=FIT, quiet=True) as run:
        found = fit(lambda own: RewardModel.from_policy(tiny(), seeds=own, max_length=48), told, FIT, run, seeds=Seeds(0))
    assert isinstance(found.model, Ensemble)
    assert found.report.n == 15
    assert found.report.accuracy > 0.9
    scores = found.model.scores(SAID, TEXTS)
    assert len({tuple(row) for row in scores.tolist()}) == 3
    results = [json.loads((tmp_path / "run" / f"member{k}" / "result.json").read_text()) for k in range(3)]
    assert all(r["comparisons"] < 45 for r in results), "about a third of the questions are in no draw"
    for member in found.model.members:
        drawn_scores = torch.tensor(member([c.prompt for c in told], [c.left for c in told]))
        assert drawn_scores.isfinite().all()


def test_a_draw_weighs_as_much_as_all_questions() -> None:
    train, _ = split_questions(opinions(40), 0.0, Seeds(0))
    one, other = drawn(train, Seeds(1)), drawn(train, Seeds(2))
    assert sum(c.weight for q in one for c in q) == 40
    assert max(c.weight for q in one for c in q) > 1
    assert one != other
    assert drawn(train, Seeds(1)) == one


def test_a_policy_is_improved_against_an_ensemble_and_a_sentinel_is_only_watched(tmp_path: Path) -> None:
    settings = small_ppo(steps=1)
    watched = members(1)[0]
    with Run.open(tmp_path / "ppo", kind="ppo", settings=settings, quiet=True) as run:
        found = improve(tiny(), PROMPTS, Ensemble(members(2)), settings, run, seeds=Seeds(0), sentinel=watched)
    assert "objective/sentinel" in found
    assert found["ensemble/std"] > 0
    [row] = read_lines(tmp_path / "ppo" / "metrics.jsonl")
    assert row["objective/sentinel"] != row["objective/scores"]


def test_a_resumed_run_refuses_another_ensemble(tmp_path: Path) -> None:
    settings = small_ppo(steps=2)

    def go(reward: Any) -> None:
        with Run.open(tmp_path / "ppo", kind="ppo", settings=settings, quiet=True) as run:
            improve(tiny(), PROMPTS, reward, settings, run, seeds=Seeds(0))

    go(Ensemble(members(2)))
    go(Ensemble(members(2)))
    with pytest.raises(ConfigError, match="reward model changed"):
        go(Ensemble(members(3)))
    with pytest.raises(ConfigError, match="way to combine members changed"):
        go(Ensemble(members(2), combine="worst"))
    shifted = members(2)
    shifted[1].bias += 1.0
    with pytest.raises(ConfigError, match="reward model changed"):
        go(Ensemble(shifted))


def test_the_api_fits_an_ensemble_and_watches_a_sentinel(tmp_path: Path) -> None:
    settings = {"batch_size": 8, "max_length": 48, "normalization_samples": 8, "learning_rate": 1e-3}
    fitted = bf.fit_reward(tiny(), opinions(24), tmp_path / "r", quiet=True, members=2, combine="worst", **settings)
    assert isinstance(fitted, Ensemble)
    assert fitted.report.n > 0
    run = bf.improve(
        tiny(), [p.text for p in PROMPTS], fitted, bf.ppo(steps=1, batch_size=4, max_new_tokens=4), sentinel=vowels, quiet=True
    )  # fmt: skip
    assert "objective/sentinel" in run.metrics
    again = bf.fit_reward(tiny(), opinions(24), tmp_path / "r", quiet=True, members=2, combine="worst", **settings)
    assert again(SAID, TEXTS) == fitted(SAID, TEXTS)
    assert dataclasses.replace(FIT, ensemble=Members()).ensemble.members == 1
