"""TRPO's step against its definition: the exact Fisher matrix of a small world, solved directly."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from backflip.errors import NonFiniteError
from backflip.maths.policy_losses import surrogate
from backflip.seeds import Seeds
from backflip.train.trust_region import Surroundings, conjugate_gradients, trust_region_step
from backflip.worlds.exact import ExactWorld

torch.set_num_threads(1)


class Scene:
    """Draws from a world's reference, and what a step asks about them."""

    def __init__(self, n: int = 64, parts: int = 3) -> None:
        self.world = ExactWorld(vocab=3, length=2, prompts=2)
        self.table = nn.Parameter(self.world.reference.clone())
        prompts = torch.arange(n) % 2
        self.draws = self.world.sample(self.table, prompts, Seeds(0).torch("draws"))
        self.advantages = (self.draws.scores - self.draws.scores.mean()).unsqueeze(1).expand_as(self.draws.logps)
        self.mask = torch.ones_like(self.draws.logps)
        self.mask[::5, 1] = 0
        self.parts = list(torch.arange(n).tensor_split(parts))
        self.total = self.mask.sum()

    def logps(self, rows: Tensor) -> Tensor:
        return self.world.logps(self.table, self.draws.prompts[rows], self.draws.tokens[rows])

    def loss(self, rows: Tensor, logps: Tensor) -> Tensor:
        return surrogate(logps, self.draws.logps[rows], self.advantages[rows], self.mask[rows], denominator=self.total).loss

    def about(self) -> Surroundings:
        return Surroundings(self.logps, self.loss, lambda rows: self.mask[rows])

    def step(self, **changes: float) -> object:
        options = {"max_kl": 0.01, "iterations": 40, "damping": 1e-2} | changes
        return trust_region_step([self.table], self.parts, self.about(), **options)  # type: ignore[arg-type]


def scores_of(scene: Scene) -> Tensor:
    """∇log π of every unmasked token, one row each."""
    everything = torch.arange(len(scene.mask))
    logps = scene.logps(everything)[scene.mask.bool()]
    return torch.stack([torch.autograd.grad(one, scene.table, retain_graph=True)[0].reshape(-1) for one in logps])


def test_the_step_is_the_natural_gradient_as_long_as_the_region_allows() -> None:
    scene = Scene()
    rows = scores_of(scene)
    fisher = rows.T @ rows / len(rows) + 1e-2 * torch.eye(rows.shape[1], dtype=torch.float64)
    everything = torch.arange(len(scene.mask))
    gradient = torch.autograd.grad(scene.loss(everything, scene.logps(everything)), scene.table)[0].reshape(-1)
    direction = torch.linalg.solve(fisher, -gradient)
    full = direction * (2 * 0.01 / (direction @ fisher @ direction)).sqrt()
    before = scene.table.detach().clone()
    taken = scene.step()
    assert taken.grad_norm == pytest.approx(gradient.norm().item(), rel=1e-9)  # type: ignore[attr-defined]
    moved = (scene.table.detach() - before).reshape(-1)
    torch.testing.assert_close(moved, taken.taken * full, rtol=2e-3, atol=1e-6)  # type: ignore[attr-defined]


@pytest.mark.parametrize("max_kl", [1e-4, 1e-2, 0.1])
def test_the_step_stays_in_the_region_and_helps(max_kl: float) -> None:
    scene = Scene()
    before = float(scene.loss(torch.arange(64), scene.logps(torch.arange(64))).detach())
    taken = scene.step(max_kl=max_kl)
    after = float(scene.loss(torch.arange(64), scene.logps(torch.arange(64))).detach())
    assert 0.2 * max_kl < taken.kl <= max_kl  # type: ignore[attr-defined]
    assert before - after == pytest.approx(taken.improvement, abs=1e-12)  # type: ignore[attr-defined]
    assert taken.improvement > 0  # type: ignore[attr-defined]


def test_how_the_batch_is_cut_does_not_matter() -> None:
    tables = []
    for parts in (1, 2, 7):
        scene = Scene(parts=parts)
        scene.step()
        tables.append(scene.table.detach())
    torch.testing.assert_close(tables[1], tables[0], rtol=0, atol=1e-10)
    torch.testing.assert_close(tables[2], tables[0], rtol=0, atol=1e-10)


def test_where_nothing_helps_nothing_changes() -> None:
    scene = Scene()
    before = scene.table.detach().clone()
    scene.advantages = torch.zeros_like(scene.advantages)
    assert scene.step().taken == 0  # type: ignore[attr-defined]
    assert torch.equal(scene.table.detach(), before)
    scene = Scene()
    honest = scene.loss
    scene.loss = lambda rows, logps: honest(rows, logps) + 1e3 * (logps.detach() - scene.draws.logps[rows]).abs().sum()  # type: ignore[method-assign]
    assert scene.step().taken == 0  # type: ignore[attr-defined]
    assert torch.equal(scene.table.detach(), before), "every share of the step was worse, so the weights are those of before"
    scene.mask = torch.zeros_like(scene.mask)
    assert scene.step().taken == 0  # type: ignore[attr-defined]


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    scene = Scene()
    before = scene.table.detach().clone()
    scene.advantages = torch.full_like(scene.advantages, torch.inf)
    with pytest.raises(NonFiniteError, match="nothing was changed"):
        scene.step()
    assert torch.equal(scene.table.detach(), before)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(0, 1000))
def test_conjugate_gradients_solve_any_definite_system(n: int, seed: int) -> None:
    root = torch.randn(n, n, generator=Seeds(seed).torch("a"), dtype=torch.float64)
    matrix = root @ root.T + 0.1 * torch.eye(n, dtype=torch.float64)
    target = torch.randn(n, generator=Seeds(seed).torch("b"), dtype=torch.float64)
    found = conjugate_gradients(lambda v: matrix @ v, target, 3 * n, tolerance=1e-24)
    torch.testing.assert_close(found, torch.linalg.solve(matrix, target), rtol=1e-6, atol=1e-8)
