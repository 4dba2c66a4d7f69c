"""The five kinds of noise: what is drawn is what is enumerated, and their outcomes are those they are named after."""

from __future__ import annotations

import numpy as np
import pytest

from backflip.maths.overoptimisation import enumerate_world
from backflip.seeds import Seeds
from backflip.worlds.tails import RARE, TAILS


@pytest.mark.parametrize("name", TAILS)
def test_noise_is_drawn_as_its_tail_says(name: str) -> None:
    tail = TAILS[name]
    noise = tail.noise(np.random.default_rng(1), 200_000)
    for x in (-2.0, 0.0, 0.5, 3.0):
        expected = float(tail.parts[0].survival(np.array([x]))[0])
        assert float(np.mean(noise > x)) == pytest.approx(expected, abs=5 * np.sqrt(expected * (1 - expected) / 200_000) + 1e-9)


def test_draws_are_keyed_and_hacks_are_rare_and_bad() -> None:
    tail = TAILS["rare hack"]
    gold, proxy = tail.draw(400_000, Seeds(0))
    again = tail.draw(400_000, Seeds(0))
    assert (gold == again[0]).all()
    assert (proxy == again[1]).all()
    assert not (gold == tail.draw(400_000, Seeds(1))[0]).all()
    hacks = proxy - gold > 6.5  # 10 ± 0.7 for a hack, 0 ± 0.7 for the others
    assert float(np.mean(hacks)) == pytest.approx(RARE, abs=5 * np.sqrt(RARE / 400_000))
    assert float(gold[hacks].mean()) == pytest.approx(-4.0, abs=0.3)


def test_outcomes_are_what_they_are_called() -> None:
    ends = {}
    for name, tail in TAILS.items():
        world = enumerate_world(tail.parts, cells=2500)
        curve = [world.best_of(n) for n in (1, 2, 4, 8, 16, 32, 64, 128, 512, 2048, 8192, 30_000)]
        ends[name] = (max(curve), curve[-1], curve[-2], curve[-3])
    shapes = {
        name: "cliff" if last < -1 else "peak" if last < 0.5 * top else "plateau" if last - before < 0.01 else "none"
        for name, (top, last, before, _) in ends.items()
    }
    assert shapes == {name: tail.outcome for name, tail in TAILS.items()}
