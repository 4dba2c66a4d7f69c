"""Learning over several turns and under a mask, against worlds in which the right gradient and the optimum are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny_models import PROMPTS, small_ppo, tiny, vowels
from torch import Tensor

from backflip.envs.text import Step
from backflip.errors import ConfigError
from backflip.lab.exact_training import exact_policy
from backflip.records import Prompt
from backflip.rollout.masking import Nucleus, nucleus
from backflip.runs import Run
from backflip.runs.logs import read_lines
from backflip.seeds import Seeds
from backflip.settings import Online, Optim, Sampling
from backflip.train.composition import check, title
from backflip.train.episodes import prepare_prompts, stop_tokens
from backflip.train.gathering import Source
from backflip.train.invariants import Invariants
from backflip.train.learner import Learner
from backflip.train.online import Trainer, improve
from backflip.worlds.exact import ExactWorld
from backflip.worlds.exact_text import gold_of, prompts_of

torch.set_num_threads(1)

BETA = 0.4
WORLD = ExactWorld(vocab=3, length=3, prompts=2, seed=5)
TABLE = WORLD.reference + 0.4 * torch.randn(WORLD.reference.shape, generator=torch.Generator().manual_seed(1)).double()
SETTINGS: dict[str, Any] = {
    "batch_size": 64, "num_generations": 8, "ppo_epochs": 1, "advantage_estimator": "rloo", "policy_loss": "reinforce",
    "critic": "none", "kl_coef": BETA, "kl_controller": "fixed", "whiten_rewards": False, "whiten_advantages": False,
    "missing_penalty": None, "averaging": "seq-mean-token-sum", "save_every": 1000,
    "sampling": Sampling(max_new_tokens=3, temperature=1.0),
    "optim": Optim(learning_rate=0.0, max_grad_norm=None, micro_batch_size=1024),
}  # fmt: skip


class Echo:
    """The policy says a digit, the world the next one, the policy a last one; the reward is the world's of all three."""

    stops: tuple[str, ...] = ("0", "1", "2")

    def reset(self, prompt: Prompt) -> str:
        self.place, self.said = ord(prompt.plain) - ord("A"), [0][:0]
        return ""

    def step(self, action: str) -> Step:
        self.said.append(int(action))
        if len(self.said) == 1:
            self.said.append((self.said[0] + 1) % 3)
            return Step(str(self.said[1]), 0.0, False)
        return Step("", float(WORLD.scores(torch.tensor([self.place]), torch.tensor([self.said]))), True)


def trainer_of(settings: Online, environment: Any, mask: Nucleus | None = None) -> Trainer:
    policy, seeds = exact_policy(WORLD, TABLE), Seeds(8)
    source = Source(
        policy=policy, prompts=prepare_prompts(policy, prompts_of(WORLD), settings), sentinel=None, gold=None,
        reward=None if environment else gold_of(WORLD), settings=settings, seeds=seeds, stops=stop_tokens(policy, "eos"),
        environment=environment, mask=mask,
    )  # fmt: skip
    return Trainer(
        policy=policy, reference=exact_policy(WORLD), critic=None, source=source, settings=settings, seeds=seeds,
        learner=Learner(policy.parameters(), settings.optim, total=10**6), kl_coef=settings.kl_coef,
        invariants=Invariants(),
    )  # fmt: skip


def sampled_gradient(trainer: Trainer, batches: int = 120) -> tuple[Tensor, Tensor]:
    """Mean and standard error of the table's gradient over so many batches."""
    seen = []
    for step in range(batches):
        trainer.step(step)
        seen.append(trainer.policy.model.table.grad.clone())
    stack = torch.stack(seen)
    return stack.mean(0), stack.std(0) / batches**0.5


def echo_objective(table: Tensor) -> Tensor:
    """E[r] − β KL over the two digits that the policy chooses, mean over prompts."""
    total = torch.zeros((), dtype=table.dtype)
    for p in range(WORLD.prompts):
        for first in range(3):
            second = (first + 1) % 3
            tokens = torch.tensor([[first, second, last] for last in range(3)])
            places = torch.full((3,), p)
            logps, ref = (WORLD.logps(t, places, tokens)[:, [0, 2]].sum(1) for t in (table, WORLD.reference))
            total = total + (logps.exp() * (WORLD.scores(places, tokens) - BETA * (logps - ref))).sum()
    return total / WORLD.prompts


def agree(found: tuple[Tensor, Tensor], expected: Tensor) -> None:
    """The mean gradient is the expected one up to chance."""
    mean, error = found
    varies = error > 1e-12
    z = (mean - expected)[varies] / error[varies]
    assert z.abs().max().item() < 4.2
    assert z.square().mean().item() < 2.0
    assert (expected[varies] / error[varies]).square().mean().item() > 5, "the test can tell the gradient from nothing"
    torch.testing.assert_close(mean[~varies], expected[~varies], atol=1e-9, rtol=0)


def test_the_gradient_over_turns_is_the_exact_one() -> None:
    table = TABLE.clone().requires_grad_()
    expected = -torch.autograd.grad(echo_objective(table), table)[0]
    found = sampled_gradient(trainer_of(Online(**SETTINGS), Echo))
    agree(found, expected)
    answers = slice(1, 1 + WORLD.vocab)  # the states in which the world speaks
    assert (found[0][:, answers] == 0).all(), "nothing is learned about what the environment says"


def test_learning_over_turns_ends_at_the_optimum(tmp_path: Path) -> None:
    settings = Online(
        **SETTINGS
        | {"steps": 70, "batch_size": 128}
        | {"optim": Optim(learning_rate=0.12, micro_batch_size=1024, adam_eps=1e-8, adam_eps_convention="torch")}
    )
    policy = exact_policy(WORLD)
    with Run.open(tmp_path / "run", kind="x", settings=settings, quiet=True) as run:
        improve(policy, prompts_of(WORLD), None, settings, run, seeds=Seeds(0), environment=Echo)
    # Backwards: the value of a first digit is β log Σ π_ref exp(r/β) over the last one, and J* the same over the first.
    best = torch.zeros((), dtype=torch.float64)
    for p in range(WORLD.prompts):
        values = []
        for first in range(3):
            tokens, places = torch.tensor([[first, (first + 1) % 3, last] for last in range(3)]), torch.full((3,), p)
            ref = WORLD.logps(WORLD.reference, places, tokens)
            value = BETA * (ref[:, 2] + WORLD.scores(places, tokens) / BETA).logsumexp(0)
            values.append(ref[0, 0] + value / BETA)
        best = best + BETA * torch.stack(values).logsumexp(0) / WORLD.prompts
    # J* − J = β KL(π‖π*).
    distance = (best - echo_objective(policy.model.table.detach())) / BETA
    start = (best - echo_objective(WORLD.reference)) / BETA
    assert start > 0.3
    assert 0 <= distance < 0.05
    rows = list(read_lines(tmp_path / "run" / "metrics.jsonl"))
    assert rows[0]["episode/turns"] == 2
    assert rows[0]["episode/own_share"] == pytest.approx(2 / 3)
    assert rows[0]["rollout/unfinished_share"] == 0


def restricted(table: Tensor) -> Tensor:
    """The table with those tokens out that are not in the starting policy's nucleus."""
    return table.masked_fill(~nucleus(TABLE, 0.8), -1e9)


def test_the_gradient_under_a_mask_is_the_exact_one_of_the_restricted_policy() -> None:
    table = TABLE.clone().requires_grad_()
    assert 0.2 < (~nucleus(TABLE, 0.8)).double().mean() < 0.6
    expected = -torch.autograd.grad(WORLD.objective(restricted(table), BETA).mean(), table)[0]
    settings = Online(**SETTINGS | {"mask_top_p": 0.8, "sampling": Sampling(max_new_tokens=4, temperature=1.0)})
    agree(sampled_gradient(trainer_of(settings, None, Nucleus(exact_policy(WORLD, TABLE), 0.8))), expected)


def test_nlpo_ends_at_the_optimum_of_what_its_mask_allows(tmp_path: Path) -> None:
    settings = Online(
        **SETTINGS
        | {"steps": 60, "batch_size": 128, "mask_top_p": 0.8, "mask_every": 1000}
        | {"sampling": Sampling(max_new_tokens=4, temperature=1.0)}
        | {"optim": Optim(learning_rate=0.12, micro_batch_size=1024, adam_eps=1e-8, adam_eps_convention="torch")}
    )
    policy = exact_policy(WORLD)
    with Run.open(tmp_path / "run", kind="x", settings=settings, quiet=True) as run:
        improve(policy, prompts_of(WORLD), gold_of(WORLD), settings, run, seeds=Seeds(0))
    allowed = nucleus(WORLD.reference, 0.8)
    inside = WORLD.sequence_logps(torch.where(allowed, 0.0, -1e9).double()) > -1e6
    tilted = (WORLD.sequence_logps(WORLD.reference) + WORLD.rewards / BETA).masked_fill(~inside, -torch.inf)
    best = BETA * tilted.logsumexp(-1)
    reached = WORLD.objective(policy.model.table.detach().masked_fill(~allowed, -1e9), BETA)
    assert ((best - reached) / BETA).max() < 0.05
    assert ((best - WORLD.objective(WORLD.reference.masked_fill(~allowed, -1e9), BETA)) / BETA).min() > 0.1
    assert next(iter(read_lines(tmp_path / "run" / "metrics.jsonl")))["mask/allowed"] < WORLD.vocab


def nlpo(**changes: Any) -> Online:
    return small_ppo(**({"mask_top_p": 0.9, "mask_every": 2, "steps": 6, "batch_size": 8, "learning_rate": 3e-3} | changes))


def test_the_mask_is_renewed_and_a_resumed_run_is_the_same(tmp_path: Path) -> None:
    def weights(folder: Path, stop: bool) -> dict[str, Tensor]:
        settings = nlpo()
        if stop:
            with Run.open(folder, kind="x", settings=settings, quiet=True) as run:
                run.log = halting(run.log)  # type: ignore[method-assign]
                with pytest.raises(KeyboardInterrupt):
                    improve(tiny(), PROMPTS, vowels, settings, run, seeds=Seeds(0))
        policy = tiny()
        with Run.open(folder, kind="x", settings=settings, quiet=True) as run:
            improve(policy, PROMPTS, vowels, settings, run, seeds=Seeds(0))
        return {name: p.detach().clone() for name, p in policy.parameters()}

    def halting(log: Any) -> Any:
        def logged(step: int, metrics: dict[str, float]) -> None:
            log(step, metrics)
            if step == 4:
                raise KeyboardInterrupt

        return logged

    whole, again = weights(tmp_path / "whole", False), weights(tmp_path / "again", True)
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    rows = list(read_lines(tmp_path / "whole" / "metrics.jsonl"))
    assert all(1 <= row["mask/allowed"] < 280 for row in rows)
    assert max(row["val/ratio_max_error"] for row in rows) > 0.01


class Brief:
    """Many letters end an action; the shorter it is the more it earns, twice."""

    stops: tuple[str, ...] = tuple("etaoin shrdlu")

    def reset(self, prompt: Prompt) -> str:
        self.left = 2
        return "go:"

    def step(self, action: str) -> Step:
        self.left -= 1
        return Step("ok.", 1 / (1 + len(action)), self.left == 0)


def test_a_real_model_learns_in_an_environment(tmp_path: Path) -> None:
    settings = small_ppo(
        steps=12, batch_size=32, num_generations=8, ppo_epochs=1, advantage_estimator="grpo", critic="none", kl_coef=0.0,
        whiten_rewards=False, whiten_advantages=False, missing_penalty=0.0, averaging="token-mean", max_new_tokens=24,
        learning_rate=1e-2, max_grad_norm=1.0, temperature=1.0, micro_batch_size=32,
    )  # fmt: skip
    with Run.open(tmp_path / "run", kind="x", settings=settings, quiet=True) as run:
        improve(tiny(), PROMPTS, None, settings, run, seeds=Seeds(0), environment=Brief)
    rows = list(read_lines(tmp_path / "run" / "metrics.jsonl"))
    assert rows[-1]["objective/optimized_scores"] > rows[0]["objective/optimized_scores"] + 0.15
    assert all(0 < row["episode/own_share"] <= 1 for row in rows)
    assert all("objective/scores" in row for row in rows)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"truncate_at": "."}, "set it to eos"), ({"advantage_estimator": "remax", "critic": "none"}, "remax")],
)
def test_parts_that_clash_with_turns_are_refused(changes: dict[str, Any], said: str) -> None:
    settings = Online(**{"whiten_rewards": False, "whiten_advantages": False} | changes)
    with pytest.raises(ConfigError, match=said):
        check(settings, None, Echo)


def test_something_must_say_what_a_completion_is_worth() -> None:
    with pytest.raises(ConfigError, match="give a reward, or an environment"):
        check(Online(), None)


def test_the_name_is_said() -> None:
    assert title(nlpo()) == "NLPO"
