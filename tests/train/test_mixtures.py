"""What can be mixed into the loop: pretraining text, an entropy bonus, a reference that follows, a double clip."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny_models import PROMPTS, TEXTS, gradients, make_trainer, nothing, small_ppo, tiny, vowels

from backflip.errors import ConfigError, Interrupted
from backflip.lab.exact_training import exact_policy
from backflip.runs import Run
from backflip.seeds import Seeds
from backflip.settings import SFT, Online, Optim, Sampling
from backflip.train.examples import negative_log_likelihood
from backflip.train.online import improve
from backflip.train.sft import encode_texts
from backflip.worlds.exact import ExactWorld
from backflip.worlds.exact_text import gold_of, prompts_of

torch.set_num_threads(1)
FREE: dict[str, Any] = {
    "ppo_epochs": 1, "num_generations": 4, "advantage_estimator": "rloo", "policy_loss": "reinforce", "critic": "none",
    "whiten_rewards": False, "whiten_advantages": False, "kl_coef": 0.0, "kl_controller": "fixed", "missing_penalty": None,
    "temperature": 1.0,
}  # fmt: skip


def trainer_of(**changes: Any) -> Any:
    trainer = make_trainer(small_ppo(**(FREE | {"learning_rate": 0.0, "max_grad_norm": None} | changes)))
    trainer.critic = None
    trainer.learner = type(trainer.learner)(trainer.policy.parameters(), trainer.settings.optim, total=100)
    return trainer


def updated(trainer: Any) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    prompts, rollout = trainer.source.sample(0)
    episodes, _ = trainer.penalize(rollout, trainer.source.judge(prompts, rollout))
    metrics = trainer.update(0, episodes)
    return gradients(trainer.policy.parameters()), metrics


@pytest.mark.parametrize("micro", [3, 64])
def test_pretraining_gradients_add_up_whatever_the_slices(micro: int) -> None:
    examples = encode_texts(tiny(), TEXTS * 3, SFT(max_length=12))
    alone, _ = updated(trainer_of(micro_batch_size=micro))
    mixed_trainer = trainer_of(micro_batch_size=micro, ptx_coef=0.7, ptx_ratio=0.5)
    mixed_trainer.pretraining = examples
    mixed, metrics = updated(mixed_trainer)
    mixed_trainer.learner.optimizer.t -= 1  # what the last update drew
    chosen = mixed_trainer._pretraining_rows(8)
    assert len(chosen) == 4
    policy = tiny()
    loss = negative_log_likelihood(policy, chosen) / sum(len(row.response) for row in chosen)
    loss.backward()
    assert metrics["loss/ptx"] == pytest.approx(loss.item(), rel=1e-5)
    text = gradients(policy.parameters())
    for name, gradient in mixed.items():
        torch.testing.assert_close(gradient, alone[name] + 0.7 * text[name], rtol=1e-4, atol=1e-6)


def test_pretraining_text_holds_on_to_what_was_learned(tmp_path: Path) -> None:
    examples = encode_texts(tiny(), TEXTS, SFT(max_length=16))
    losses = {}
    for coef in (0.0, 1.0):
        settings = small_ppo(**(FREE | {"steps": 12, "ptx_coef": coef, "ptx_ratio": 1.0, "learning_rate": 3e-3}))
        policy = tiny()
        with Run.open(tmp_path / f"run{coef}", kind="x", settings=settings, quiet=True) as run:
            improve(policy, PROMPTS, vowels, settings, run, seeds=Seeds(0), pretraining=examples if coef else ())
        losses[coef] = negative_log_likelihood(policy, examples).item()
    assert losses[1.0] < losses[0.0]


def test_mixing_without_text_is_refused(tmp_path: Path) -> None:
    settings = small_ppo(ptx_coef=1.0)
    with (
        Run.open(tmp_path / "run", kind="x", settings=settings, quiet=True) as run,
        pytest.raises(ConfigError, match="none was given"),
    ):
        improve(tiny(), PROMPTS, vowels, settings, run, seeds=Seeds(0))


def test_the_entropy_bonus_has_the_gradient_of_the_entropy() -> None:
    bonus, _ = updated(trainer_of(entropy_coef=0.3, averaging="token-mean"))
    alone, _ = updated(trainer_of(averaging="token-mean"))
    trainer = trainer_of()
    _, rollout = trainer.source.sample(0)
    entropy = trainer.policy.score(rollout.tokens, entropy_gradient=True).entropy_BT
    mask = rollout.tokens.mask_BT
    ((entropy * mask).sum() / mask.sum()).backward()
    own = gradients(trainer.policy.parameters())
    for name, gradient in bonus.items():
        torch.testing.assert_close(gradient, alone[name] - 0.3 * own[name], rtol=1e-4, atol=1e-6)


def test_entropy_alone_leads_to_the_uniform_policy(tmp_path: Path) -> None:
    world = ExactWorld(vocab=3, length=2, prompts=2)
    policy = exact_policy(world)
    settings = Online(
        steps=60, batch_size=64, ppo_epochs=1, critic="none", advantage_estimator="return", policy_loss="reinforce",
        whiten_rewards=False, whiten_advantages=False, kl_coef=0.0, kl_controller="fixed", missing_penalty=None, entropy_coef=1.0,
        sampling=Sampling(max_new_tokens=3, temperature=1.0),
        optim=Optim(learning_rate=0.1, adam_eps=1e-8, adam_eps_convention="torch"),
    )  # fmt: skip
    with Run.open(tmp_path / "run", kind="x", settings=settings, quiet=True) as run:
        improve(policy, prompts_of(world), nothing, settings, run, seeds=Seeds(0))
    chances = policy.model.table.detach().softmax(-1)
    assert (chances - 1 / 3).abs().max() < 0.02


def test_a_reference_that_follows_lets_the_policy_go_further(tmp_path: Path) -> None:
    world = ExactWorld(vocab=3, length=2, prompts=2)
    far = {}
    for every in (None, 10):
        policy = exact_policy(world)
        settings = Online(
            steps=40, batch_size=256, num_generations=8, ppo_epochs=1, critic="none", advantage_estimator="rloo",
            policy_loss="reinforce", whiten_rewards=False, whiten_advantages=False, kl_coef=1.0, kl_controller="fixed",
            missing_penalty=None, averaging="seq-mean-token-sum", reference_every=every, save_every=1000,
            sampling=Sampling(max_new_tokens=3, temperature=1.0),
            optim=Optim(learning_rate=0.15, adam_eps=1e-8, adam_eps_convention="torch"),
        )  # fmt: skip
        with Run.open(tmp_path / f"run{every}", kind="x", settings=settings, quiet=True) as run:
            improve(policy, prompts_of(world), gold_of(world), settings, run, seeds=Seeds(0))
        far[every] = world.kl(policy.model.table.detach(), world.reference).mean().item()
    stay = world.kl(world.optimal(1.0).table, world.reference).mean().item()
    assert far[None] == pytest.approx(stay, rel=0.3)
    assert far[10] > 2 * far[None]


@pytest.mark.parametrize(
    "changes",
    [
        {"reference_every": 2, "kl_coef": 0.1},
        {"advantage_estimator": "return-baseline"},
        {"max_draws": 3},
        {"policy_loss": "trpo"},
        {"ptx_coef": 0.5},
    ],
)
def test_a_resumed_run_is_the_same_run(changes: dict[str, Any], tmp_path: Path) -> None:
    settings = small_ppo(**(FREE | {"steps": 5, "learning_rate": 3e-3, "save_every": 1} | changes))
    examples = encode_texts(tiny(), TEXTS, SFT(max_length=16)) if "ptx_coef" in changes else ()

    def train(folder: str, stop_at: int | None) -> tuple[str, dict[str, torch.Tensor]]:
        policy = tiny()
        with Run.open(tmp_path / folder, kind="x", settings=settings, quiet=True) as run:
            if stop_at is not None:
                obey = run.obey

                def stop(step: int) -> None:
                    if step == stop_at:
                        raise Interrupted("stopped by the test")
                    obey(step)

                run.obey = stop  # type: ignore[method-assign]
            improve(policy, PROMPTS, vowels, settings, run, seeds=Seeds(0), pretraining=examples)
        rows = (tmp_path / folder / "metrics.jsonl").read_text()
        return rows, {name: p.detach().clone() for name, p in policy.model.named_parameters()}

    whole, weights = train("whole", None)
    with pytest.raises(Interrupted):
        train("parts", 3)
    resumed, found = train("parts", None)
    assert all(torch.equal(found[name], weights[name]) for name in weights)
    assert resumed == whole


def test_the_double_clip_bounds_what_a_bad_token_costs() -> None:
    plain, bounded = trainer_of(policy_loss="ppo", ppo_epochs=2), trainer_of(policy_loss="ppo", ppo_epochs=2, dual_clip=1.5)
    prompts, rollout = plain.source.sample(0)
    episodes, _ = plain.penalize(rollout, plain.source.judge(prompts, rollout))
    far = dataclasses.replace(episodes, old_logps_BT=episodes.old_logps_BT - 3.0)  # ratios of 20
    index = torch.arange(8)
    losses = [t._loss(far, index, far.advantages_BT, far.rewards_BT, first=False)[0].item() for t in (plain, bounded)]
    assert losses[1] < losses[0]


def test_parts_that_clash_are_refused() -> None:
    from backflip.train.composition import check

    for changes, sentence in [
        ({"policy_loss": "trpo", "entropy_coef": 0.1}, "makes its own step"),
        ({"dual_clip": 3.0}, "nothing reads dual_clip"),
        ({"max_draws": 2, "advantage_estimator": "return"}, "does not ask about"),
        ({"overlong_buffer": 6}, "must be below max_new_tokens"),
    ]:
        with pytest.raises(ConfigError, match=sentence):
            check(small_ppo(**(FREE | changes)), vowels)  # type: ignore[arg-type]
