"""Several draws of prompts become one batch, and dynamic sampling fills it with groups that teach."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from tests.tiny_models import make_trainer, small_ppo, tiny, vowels

from backflip.policies.tokens import TokenBatch
from backflip.rewards.spans import Process, Span
from backflip.rewards.weighted import Weighted
from backflip.rollout.draws import Rollout
from backflip.rollout.local import generate
from backflip.seeds import Seeds
from backflip.train.gathering import Draw, _turn_ends, join

torch.set_num_threads(1)


def grouped(**changes: Any) -> Any:
    parts = {
        "ppo_epochs": 1, "num_generations": 4, "advantage_estimator": "grpo", "critic": "none", "whiten_rewards": False,
        "whiten_advantages": False, "temperature": 1.0, "missing_penalty": None, "kl_coef": 0.0, "kl_controller": "fixed",
    }  # fmt: skip
    trainer = make_trainer(small_ppo(**(parts | changes)))
    trainer.critic = None
    trainer.learner = type(trainer.learner)(trainer.policy.parameters(), trainer.settings.optim, total=100)
    return trainer


def test_rows_of_several_draws_keep_everything_that_is_theirs() -> None:
    trainer = grouped(ignore_eos=False, max_new_tokens=12)
    draws = []
    for attempt in range(3):
        prompts, rollout = trainer.source.sample(0, attempt)
        draws.append(Draw(prompts, rollout, trainer.source.judge(prompts, rollout)))
    chosen = [(2, 1), (0, 0), (1, 1)]
    joined = join(draws, chosen, 4, fill=trainer.policy.fill_id)
    assert len(joined.prompts) == len(joined.rollout.tokens) == 12
    for place, (d, g) in enumerate(chosen):
        for i in range(4):
            row, old = place * 4 + i, g * 4 + i
            mine, theirs = joined.rollout.tokens, draws[d].rollout.tokens
            on, was = mine.mask_BT[row].bool(), theirs.mask_BT[old].bool()
            assert torch.equal(mine.response_BT[row][on], theirs.response_BT[old][was])
            assert torch.equal(joined.rollout.logps_BT[row][on], draws[d].rollout.logps_BT[old][was])
            asked, had = mine.query_mask_BQ[row].bool(), theirs.query_mask_BQ[old].bool()
            assert torch.equal(mine.query_BQ[row][asked], theirs.query_BQ[old][had])
            assert bool(asked[-1]), "queries stay next to their responses"
            assert joined.judged.texts[row] == draws[d].judged.texts[old]
            assert joined.judged.scores_B[row] == draws[d].judged.scores_B[old]
            assert joined.judged.kept_B[row] == draws[d].judged.kept_B[old]


def only_of_cats(prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[float]:
    """Completions of prompts with a cat differ in score, those of all others do not."""
    return [v if "cat" in p else 0.5 for p, v in zip(prompts, vowels(prompts, completions), strict=True)]


def test_dynamic_sampling_fills_the_batch_with_groups_that_differ() -> None:
    trainer = grouped(max_draws=12)
    trainer.source.reward = only_of_cats
    draw, metrics = trainer.source.gather(0)
    assert all("cat" in prompt.plain for prompt in draw.prompts)
    assert len(draw.prompts) == 8
    assert metrics["group/draws"] > 1
    assert 0 < metrics["group/drawn_zero_std_share"] < 1
    assert trainer.source.drawn == metrics["group/draws"], "the next step goes on where this one stopped"
    again = grouped(max_draws=12)
    again.reward = only_of_cats
    assert torch.equal(again.source.gather(0)[0].rollout.tokens.response_BT, draw.rollout.tokens.response_BT)


def test_when_nothing_differs_the_batch_is_full_all_the_same() -> None:
    trainer = grouped(max_draws=3)
    trainer.source.reward = lambda prompts, completions, **columns: [1.0] * len(completions)
    draw, metrics = trainer.source.gather(0)
    assert len(draw.prompts) == 8
    assert metrics == {"group/draws": 3.0, "group/drawn_zero_std_share": 1.0}
    found = trainer.step(0)
    assert found["grad_norm"] == 0


def test_without_dynamic_sampling_nothing_changes() -> None:
    trainer = grouped()
    (prompts, rollout, _), metrics = trainer.source.gather(3)
    same, plain = trainer.source.sample(3)
    assert prompts == same
    assert torch.equal(rollout.tokens.response_BT, plain.tokens.response_BT)
    assert metrics == {}


def test_the_soft_overlong_punishment_is_that_of_the_paper() -> None:
    # L_max 6, L_cache 3: nothing up to 3 tokens, a third for each more (DAPO, eq. 13).
    trainer = grouped(overlong_buffer=3, max_new_tokens=6, ignore_eos=False)
    trainer.source.stops = torch.arange(0, 280, 4)  # so that completions of every length end
    prompts, rollout = trainer.source.sample(0)
    judged = trainer.source.judge(prompts, rollout)
    assert len(set(judged.kept_B.tolist())) > 2
    taken = {1: 0.0, 2: 0.0, 3: 0.0, 4: 1 / 3, 5: 2 / 3, 6: 1.0}
    punished = torch.tensor([taken[n] for n in judged.kept_B.tolist()])
    torch.testing.assert_close(torch.tensor(judged.proxy) - judged.scores_B, punished)


def test_unfinished_completions_can_be_left_out_of_the_loss() -> None:
    trainer = grouped(mask_unfinished=True, ignore_eos=False, max_new_tokens=24)
    prompts, rollout = trainer.source.sample(0)
    judged = trainer.source.judge(prompts, rollout)._replace(found_B=torch.tensor([True, False] * 4))
    episodes, _ = trainer.penalize(rollout, judged)
    assert (episodes.loss_mask_BT.sum(1) == 0).tolist() == [False, True] * 4
    assert episodes.advantages_BT[1::2].abs().max() == 0
    everything, _ = grouped(ignore_eos=False, max_new_tokens=24).penalize(rollout, judged)
    assert torch.equal(episodes.advantages_BT[::2], everything.advantages_BT[::2]), "groups are compared as a whole"
    assert trainer.update(0, episodes)["grad_norm"] > 0
    none, _ = trainer.penalize(rollout, judged._replace(found_B=torch.zeros(8, dtype=torch.bool)))
    assert trainer.update(0, none)["grad_norm"] == 0


def test_rewards_inside_a_completion_stand_where_their_steps_end() -> None:
    def steps(prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[Any]:
        return [Process((Span(0, 1, 0.25),), outcome=0.5) if text else 0.5 for text in completions]

    settings = small_ppo(temperature=1.0, missing_penalty=None, kl_coef=0.0)
    trainer = make_trainer(settings, reward=Weighted({"steps": (steps, 2.0)}))
    prompts, rollout = trainer.source.sample(0)
    judged = trainer.source.judge(prompts, rollout)
    episodes, metrics = trainer.penalize(rollout, judged)
    filled = torch.tensor([bool(text) for text in judged.texts])
    assert filled.any()
    torch.testing.assert_close(episodes.rewards_BT.sum(1), torch.where(filled, 1.5, 1.0))
    inside = episodes.rewards_BT[filled]
    assert ((inside == 0.5).sum(1) + (inside == 1.5).sum(1) >= 1).all(), "0.5 where the first character ends, 1 at the end"
    assert metrics["rewards/steps/mean"] == pytest.approx(float(torch.where(filled, 0.75, 0.5).mean()))
    plain = make_trainer(settings, reward=Weighted({"v": (vowels, 1.0)}))
    prompts, rollout = plain.source.sample(0)
    episodes, _ = plain.penalize(rollout, plain.source.judge(prompts, rollout))
    assert (episodes.rewards_BT != 0).sum(1).max() == 1, "a sequence-level reward stands on the last token alone"


def test_a_step_is_compared_with_all_steps_of_its_prompt() -> None:
    def steps(prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[Any]:
        ends = [sorted({1, (len(text) + 1) // 2}) if len(text) > 1 else [] for text in completions]
        return [
            Process(tuple(Span(0, end, float(text.count("a"))) for end in row), outcome=1.0)
            for text, row in zip(completions, ends, strict=True)
        ]

    options = {"missing_penalty": None, "kl_coef": 0.0, "ignore_eos": False, "max_new_tokens": 24}
    trainer = grouped(advantage_estimator="grpo-process", **options)
    trainer.source.reward = Weighted({"steps": (steps, 2.0), "silent": (vowels, 0.0)})
    prompts, rollout = trainer.source.sample(0)
    judged = trainer.source.judge(prompts, rollout)
    assert judged.steps_BT is not None
    assert judged.steps_BT.sum(1).max() == 2
    episodes, metrics = trainer.penalize(rollout, judged)
    # By hand: the last step is what the end of the completion carries.
    found, at = [], []
    for row in range(8):
        n = int(rollout.tokens.mask_BT[row].sum())
        ends = sorted({*judged.steps_BT[row].nonzero().flatten().tolist(), n - 1})
        at.append(ends)
        starts = [0, *(end + 1 for end in ends[:-1])]
        found.append([float(episodes.rewards_BT[row, a : b + 1].sum()) for a, b in zip(starts, ends, strict=True)])
    for row in range(8):
        group = torch.tensor([r for other in found[row // 4 * 4 : row // 4 * 4 + 4] for r in other], dtype=torch.float64)
        for t in range(int(rollout.tokens.mask_BT[row].sum())):
            left = [(r - group.mean()) / (group.std() + 1e-6) for r, end in zip(found[row], at[row], strict=True) if end >= t]
            assert episodes.advantages_BT[row, t].item() == pytest.approx(float(sum(left)), abs=1e-4)
    assert "group/zero_std_share" in metrics
    plain = grouped(advantage_estimator="grpo-process", **options)
    outcome = grouped(**options)
    both = [t.penalize(rollout, t.source.judge(prompts, rollout))[0].advantages_BT for t in (plain, outcome)]
    torch.testing.assert_close(both[0], both[1], rtol=1e-6, atol=1e-6)


def test_a_turn_in_an_environment_is_a_step() -> None:
    acted_BT = torch.tensor([[1, 1, 0, 1, 0], [1, 0, 0, 1, 1]])
    empty = TokenBatch(acted_BT, acted_BT, acted_BT, torch.ones_like(acted_BT))
    rollout = Rollout(empty, acted_BT.float(), torch.tensor([True, True]), acted_BT=acted_BT)
    ends_BT = _turn_ends(rollout)
    assert ends_BT is not None
    assert ends_BT.tolist() == [[0, 1, 0, 1, 0], [1, 0, 0, 0, 1]]
    assert _turn_ends(dataclasses.replace(rollout, acted_BT=None)) is None


def test_remax_compares_with_the_greedy_completion() -> None:
    trainer = grouped(advantage_estimator="remax")
    prompts, rollout = trainer.source.sample(0)
    judged = trainer.source.judge(prompts, rollout)
    assert judged.baseline_B is not None
    assert judged.baseline_B.view(-1, 4).std(1).max() == 0
    greedy = dataclasses.replace(trainer.settings.sampling, top_k=1)
    policy = tiny()
    queries = [policy.encode(prompt) for prompt in prompts[::4]]
    rows = generate(policy, queries, greedy, seeds=Seeds(99)).tokens
    texts = [policy.decode(ids) for ids in rows.response_BT.tolist()]
    assert judged.baseline_B[::4].tolist() == pytest.approx(vowels([], texts), rel=1e-6)
    episodes, metrics = trainer.penalize(rollout, judged)
    expected = judged.scores_B - judged.baseline_B
    torch.testing.assert_close(episodes.advantages_BT[:, 0], expected)
    assert metrics["objective/baseline"] == pytest.approx(judged.baseline_B.mean().item())
