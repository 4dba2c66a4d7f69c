"""Episodes of several turns: what is whose, what is scored, and that rows do not disturb each other."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tests.tiny_models import PROMPTS, tiny
from tests.tiny_seq2seq import tiny_seq2seq

from backflip.envs.text import Step
from backflip.errors import ConfigError, DataError, NonFiniteError, UserError
from backflip.records import Prompt
from backflip.rollout.conversation import converse
from backflip.rollout.draws import Rollout
from backflip.seeds import Seeds
from backflip.settings import Sampling

torch.set_num_threads(1)

SAMPLING = Sampling(temperature=1.0, max_new_tokens=24)


class Clerk:
    """Any of some letters ends an action; it is answered with its length, and the second ends the episode."""

    stops: tuple[str, ...] = ("e", "a", "o", " ")
    turns = 2
    opening = ""
    answer = "<{n}>"

    def reset(self, prompt: Prompt) -> str:
        self.said: list[str] = []
        return self.opening

    def step(self, action: str) -> Step:
        self.said.append(action)
        return Step(self.answer.format(n=len(action)), float(len(self.said)), len(self.said) >= self.turns)


def talk(make: Any = Clerk, prompts: list[Prompt] | None = None, sampling: Sampling = SAMPLING, seed: int = 0) -> Rollout:
    policy, prompts = tiny(), prompts or PROMPTS
    return converse(policy, [policy.encode(p) for p in prompts], prompts, make, sampling, seeds=Seeds(seed))


def test_turns_by_hand() -> None:
    made: list[Clerk] = []

    def make() -> Clerk:
        made.append(Clerk())
        return made[-1]

    rollout, policy = talk(make), tiny()
    assert rollout.acted_BT is not None
    assert rollout.rewards_BT is not None
    assert len(made) == len(PROMPTS)
    assert rollout.finished_B.any()
    for i, clerk in enumerate(made):
        n = int(rollout.tokens.mask_BT[i].sum())
        ids, acted, rewards = (t[i, :n].tolist() for t in (rollout.tokens.response_BT, rollout.acted_BT, rollout.rewards_BT))
        runs: list[tuple[int, list[int]]] = []  # stretches of one voice
        for token, own in zip(ids, acted, strict=True):
            if not runs or runs[-1][0] != own:
                runs.append((own, []))
            runs[-1][1].append(token)
        own_texts = [policy.decode(run) for own, run in runs if own]
        answers = [policy.decode(run) for own, run in runs if not own]
        assert own_texts[: len(clerk.said)] == clerk.said
        assert answers == [f"<{len(text)}>" for text in clerk.said][: len(answers)]
        assert sum(rewards) == sum(range(1, len(clerk.said) + 1))
        assert all(acted[t] for t, reward in enumerate(rewards) if reward), "earned at a token of one's own"
        assert bool(rollout.finished_B[i]) == (len(clerk.said) == Clerk.turns)
        assert n <= SAMPLING.max_new_tokens


def test_what_the_policy_drew_is_what_it_is_scored_on() -> None:
    rollout = talk()
    assert rollout.acted_BT is not None
    own_BT = rollout.acted_BT.bool()
    scored_BT = tiny().score(rollout.tokens).logps_BT
    torch.testing.assert_close(scored_BT[own_BT], rollout.logps_BT[own_BT], atol=1e-5, rtol=0)
    assert (rollout.logps_BT[~own_BT] == 0).all()
    assert (own_BT & ~rollout.tokens.mask_BT.bool()).sum() == 0


def test_rows_do_not_disturb_each_other() -> None:
    whole, alone = talk(), talk(prompts=PROMPTS[:1])
    width = alone.tokens.response_BT.shape[1]
    assert torch.equal(whole.tokens.response_BT[0, :width], alone.tokens.response_BT[0])
    few = talk(sampling=Sampling(temperature=1.0, max_new_tokens=24, slots=2))
    assert torch.equal(few.tokens.response_BT, whole.tokens.response_BT)
    assert not torch.equal(talk(seed=1).tokens.response_BT[:, :4], whole.tokens.response_BT[:, :4])


def test_one_turn_is_plain_generation_up_to_the_stop() -> None:
    from backflip.rollout.local import generate

    class Once(Clerk):
        turns = 1

    policy, rollout = tiny(), talk(Once)
    settings = Sampling(temperature=1.0, max_new_tokens=24, stop=Clerk.stops)
    plain = generate(policy, [policy.encode(p) for p in PROMPTS], settings, seeds=Seeds(0).child("turn", 0))
    assert torch.equal(plain.tokens.response_BT, rollout.tokens.response_BT)
    assert torch.equal(plain.finished_B, rollout.finished_B)


def test_an_answer_that_fills_the_room_ends_the_episode_unfinished() -> None:
    class Wordy(Clerk):
        answer = "no end in sight, ever. " * 5

    rollout = talk(Wordy)
    answered_B = rollout.rewards_BT.sum(1) > 0  # type: ignore[union-attr]
    assert answered_B.any()
    assert not rollout.finished_B.any()
    assert (rollout.tokens.mask_BT.sum(1)[answered_B] == SAMPLING.max_new_tokens).all()


def test_an_opening_belongs_to_the_query() -> None:
    class Opens(Clerk):
        opening = "it was"

    rollout, policy = talk(Opens), tiny()
    query = rollout.tokens.query_BQ[0][rollout.tokens.query_mask_BQ[0].bool()].tolist()
    assert policy.decode(query) == "the filmit was"

    class Long(Clerk):
        opening = "never " * 40

    with pytest.raises(DataError, match="context of 64"):
        talk(Long)


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [(lambda: 1 / 0, UserError, "'Broken' failed on .*division by zero"), (lambda: None, UserError, "state, reward and done"),
     (lambda: ("", math.nan, True), NonFiniteError, "pays nan")],
)  # fmt: skip
def test_a_broken_environment_is_one_sentence(answer: Any, error: type[Exception], said: str) -> None:
    class Broken(Clerk):
        def step(self, action: str) -> Step:
            return answer()  # type: ignore[no-any-return]

    with pytest.raises(error, match=said):
        talk(Broken)


def test_an_encoder_decoder_is_refused() -> None:
    policy = tiny_seq2seq("t5")
    with pytest.raises(ConfigError, match="causal model"):
        converse(policy, [[3]], [Prompt("a")], Clerk, SAMPLING, seeds=Seeds(0))
