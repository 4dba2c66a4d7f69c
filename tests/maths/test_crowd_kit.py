"""The same answers through crowd-kit (Apache-2.0), whose numbers stand in crowd_kit.json: it is too large to install for a test.

Only where the model is the same: Dawid & Skene after so many rounds, the likelihood of noisy Bradley–Terry, Bradley–Terry itself.
What crowd-kit's noisy Bradley–Terry converges to is not compared: in release 1.4.2 its gradient overwrites a worker's share where
it should add to it and its regulariser has the other sign, so that where it stops is no maximum of the likelihood compared here.
Its one-coin model has a prior over categories that ours has not.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backflip.maths.crowds import dawid_skene
from backflip.maths.logistic import sigmoid
from backflip.maths.noisy_bradley_terry import answer_log_likelihood
from backflip.maths.ratings import ELO_PER_NAT, bradley_terry_ratings

THEIRS: dict[str, Any] = json.loads((Path(__file__).parent / "crowd_kit.json").read_text())
LEFT, RIGHT, WORKER, WON = np.array(THEIRS["comparisons"]).T


@pytest.mark.parametrize("rounds", [1, 5, 20])
def test_dawid_skene_after_so_many_rounds(rounds: int) -> None:
    units, raters, categories = THEIRS["sizes"]
    unit, rater, category = np.array(THEIRS["answers"]).T
    ours = dawid_skene(
        unit,
        rater,
        category,
        n_units=units,
        n_raters=raters,
        n_categories=categories,
        smoothing=1e-10,
        tolerance=0.0,
        limit=rounds,
    )
    expected = THEIRS["dawid_skene"][str(rounds)]
    assert ours.iterations == rounds
    assert ours.posterior_UC == pytest.approx(np.array(expected["posterior"]), abs=1e-6)
    assert ours.posterior_UC.mean(axis=0) == pytest.approx(np.array(expected["prior"]), abs=1e-6)


@pytest.mark.parametrize("case", THEIRS["noisy_bt"], ids=range(len(THEIRS["noisy_bt"])))
def test_the_likelihood_of_noisy_bradley_terry(case: dict[str, Any]) -> None:
    reliability, habit = sigmoid(np.array(case["skill_logit"])), sigmoid(np.array(case["bias_logit"]))
    ours = answer_log_likelihood(case["theta"], reliability, habit, LEFT, RIGHT, WORKER, WON)
    assert ours == pytest.approx(case["log_likelihood"], abs=1e-9)


def test_bradley_terry() -> None:
    wins = np.zeros((THEIRS["items"], THEIRS["items"]))
    np.add.at(wins, (LEFT, RIGHT), WON)
    np.add.at(wins, (RIGHT, LEFT), 1 - WON)
    theirs = np.log(THEIRS["bradley_terry"])
    ours = bradley_terry_ratings(wins)
    assert not ours.regularised
    assert ours.elo_M == pytest.approx(1000 + ELO_PER_NAT * (theirs - theirs.mean()), abs=1e-3)
