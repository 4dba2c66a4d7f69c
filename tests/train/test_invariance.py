"""Every algorithm's gradient depends on the episodes alone: not on slices, padding or the order of rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.tiny_models import PROMPTS, TEXTS, gradients, tiny, vowels
from torch import Tensor
from torch.nn.functional import pad

from backflip.algorithms import ALGORITHMS
from backflip.policies.tokens import TokenBatch
from backflip.rollout.draws import Rollout
from backflip.rollout.masking import Nucleus
from backflip.seeds import Seeds
from backflip.settings import SFT, Online, Sampling
from backflip.train.critic import SharedCritic
from backflip.train.episodes import Episodes, prepare_prompts
from backflip.train.gathering import Judged, Source
from backflip.train.learner import Learner
from backflip.train.online import Trainer
from backflip.train.sft import encode_texts

torch.set_num_threads(1)

ROWS = 12


def small(name: str, **learner: Any) -> Online:
    """An algorithm at a small size; nothing is clipped from the gradient, and no step is taken."""
    own = ALGORITHMS[name][0]
    return dataclasses.replace(
        own, batch_size=ROWS, num_generations=4 if own.num_generations > 1 else 1, num_minibatches=1,
        ppo_epochs=1 if own.policy_loss == "reinforce" else 2, critic="shared" if own.critic == "reward" else own.critic,
        max_draws=1, overlong_buffer=min(3, own.overlong_buffer), mask_keep=min(5, own.mask_keep), trust_iterations=2,
        ptx_ratio=0.5, entropy_coef=0.01 if own.policy_loss in ("ppo", "reinforce") else 0.0,
        sampling=Sampling(temperature=1.0, max_new_tokens=9),
        optim=dataclasses.replace(own.optim, learning_rate=0.0, warmup_steps=0, max_grad_norm=None, **learner),
    )  # fmt: skip


def trainer_of(settings: Online) -> Trainer:
    policy, seeds = tiny(), Seeds(0)
    critic = SharedCritic(policy) if settings.critic == "shared" else None
    if critic is not None:
        torch.nn.init.normal_(critic.head.weight, std=0.1, generator=torch.Generator().manual_seed(0))
    source = Source(
        policy=policy, prompts=prepare_prompts(policy, PROMPTS, settings), reward=vowels, gold=None, sentinel=None,
        settings=settings, seeds=seeds, stops=torch.arange(0, 280, 9),
        mask=None if settings.mask_top_p is None else Nucleus(tiny(4), settings.mask_top_p, settings.mask_keep),
    )  # fmt: skip
    return Trainer(
        policy=policy, reference=tiny(3), critic=critic, source=source, settings=settings, seeds=seeds,
        learner=Learner([*policy.parameters(), *(critic.parameters() if critic else ())], settings.optim, total=100),
        kl_coef=max(settings.kl_coef, 0.05), pretraining=encode_texts(policy, TEXTS, SFT(max_length=16)),
    )  # fmt: skip


Change = Callable[[Rollout, Judged], tuple[Rollout, Judged]]


def padded(rollout: Rollout, judged: Judged) -> tuple[Rollout, Judged]:
    """Three columns more before the prompts and two more after the completions, with anything in them."""
    t = rollout.tokens
    tokens = TokenBatch(
        query_BQ=pad(t.query_BQ, (3, 0), value=7), query_mask_BQ=pad(t.query_mask_BQ, (3, 0)),
        response_BT=pad(t.response_BT, (0, 2), value=9), mask_BT=pad(t.mask_BT, (0, 2)),
    )  # fmt: skip
    allowed = None if rollout.allowed_BTS is None else pad(rollout.allowed_BTS, (0, 0, 0, 2), value=255)
    logps = pad(rollout.logps_BT, (0, 2), value=5.0)
    return dataclasses.replace(rollout, tokens=tokens, logps_BT=logps, allowed_BTS=allowed), judged


def ordered(order: list[int]) -> Change:
    """The same rows in another order."""

    def change(rollout: Rollout, judged: Judged) -> tuple[Rollout, Judged]:
        index = torch.tensor(order)
        kept = {f.name: getattr(rollout, f.name) for f in dataclasses.fields(rollout) if f.name != "tokens"}
        moved = Rollout(rollout.tokens.rows(index), **{n: v if v is None else v[index] for n, v in kept.items()})
        fields = {
            name: value[index] if isinstance(value, Tensor) else [value[i] for i in order] if isinstance(value, list) else value
            for name, value in judged._asdict().items()
        }
        return moved, Judged(**fields)

    return change


def nothing(rollout: Rollout, judged: Judged) -> tuple[Rollout, Judged]:
    """The rollout as it is."""
    return rollout, judged


# Groups of four stay together; their rows and the groups change places.
SHUFFLED = [9, 8, 11, 10, 2, 0, 3, 1, 5, 7, 4, 6]


def outcome(name: str, change: Change = nothing, **learner: Any) -> dict[str, Tensor]:
    """The gradient of one update on what was sampled, changed in form, by a policy that has moved on meanwhile; of TRPO the
    weights after its step."""
    trainer = trainer_of(small(name, **learner))
    prompts, rollout = trainer.source.sample(0)
    rollout, judged = change(rollout, trainer.source.judge(prompts, rollout))
    episodes, _ = trainer.penalize(rollout, judged)
    if trainer.settings.policy_loss == "trpo":
        trainer.update(0, episodes)
        return {n: p.detach().clone() for n, p in trainer.policy.parameters()}
    with torch.no_grad():  # so that ratios are not 1 and some are clipped
        for _, parameter in trainer.policy.parameters():
            parameter.mul_(1.02)
    return update(trainer, episodes)


def update(trainer: Trainer, episodes: Episodes) -> dict[str, Tensor]:
    trainer._update_minibatch(episodes, first=False)
    named = [*trainer.policy.parameters(), *(trainer.critic.parameters() if trainer.critic else ())]
    return gradients(named)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_only_the_episodes_matter(name: str) -> None:
    whole = outcome(name, micro_batch_size=64)
    scale = max(float(value.abs().max()) for value in whole.values())
    assert scale > 1e-4
    others = {
        "rows one by one": outcome(name, micro_batch_size=1),
        "slices of five": outcome(name, micro_batch_size=5),
        "slices by tokens": outcome(name, micro_batch_size=64, micro_batch_tokens=40),
        "padding": outcome(name, padded, micro_batch_size=64),
        "another order": outcome(name, ordered(SHUFFLED), micro_batch_size=5),
    }
    for what, other in others.items():
        for parameter, value in whole.items():
            torch.testing.assert_close(
                other[parameter], value, rtol=1e-4, atol=2e-6 * scale + 1e-8, msg=lambda m, p=parameter, w=what: f"{w}: {p}: {m}"
            )
