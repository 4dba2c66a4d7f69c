"""What a round asks: past policies beside the present one, a rule among candidates, suspicious samples, and nothing twice."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_models import tiny

from backflip.errors import ConfigError
from backflip.records import Prompt, Query, Sample
from backflip.rounds import Loop
from backflip.rounds.asking import check_asking, draw
from backflip.rounds.checking import check_rounds
from backflip.runs import Run
from backflip.seeds import Seeds
from backflip.settings import Members, Online, Reward, Rounds, Watch

PROMPTS = [Prompt(f"prompt {i}") for i in range(40)]
PLAIN = Rounds(comparisons=10)


def sample(policy: str, prompts: Sequence[Prompt], n: int, key: str) -> list[list[Sample]]:
    """Each policy writes its name and a number of its own for each completion."""
    return [[Sample(p, f"{policy} {key} {i} {j}", policy=policy) for j in range(n)] for i, p in enumerate(prompts)]


def asked(settings: Rounds, **more: Any) -> list[Query]:
    return draw(settings, 2, "round1", ["sft"], PROMPTS, sample, Seeds(3), **more).queries


def test_by_default_pairs_of_the_policy_alone() -> None:
    found = asked(PLAIN)
    assert len(found) == 10
    assert all(query.policies == ("round1", "round1") for query in found)
    assert len({query.prompt.id for query in found}) == 10


def test_a_share_meets_an_earlier_policy() -> None:
    found = draw(dataclasses.replace(PLAIN, past=0.3), 2, "round1", ["sft"], PROMPTS, sample, Seeds(3))
    crossed = [query for query in found.queries if set(query.policies) == {"sft", "round1"}]
    assert len(crossed) == 3
    assert found.counts == {"mined": 0, "with an earlier policy": 3, "of the policy alone": 7}
    alone = draw(dataclasses.replace(PLAIN, past=1.0), 1, "sft", [], PROMPTS, sample, Seeds(3)).queries
    assert all(query.policies == ("sft", "sft") for query in alone), "there is no earlier one yet"


class Liking:
    """A reward that likes completion 0 of even prompts much more than completion 1, and of odd ones exactly as much."""

    def __call__(self, prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[float]:
        rows = [(int(text.split()[-2]), int(text.split()[-1])) for text in completions]
        return [5.0 * (1 - j) if i % 2 == 0 else 0.0 for i, j in rows]


def test_a_rule_chooses_among_candidates_and_a_share_is_random() -> None:
    near: Any = dataclasses.replace(PLAIN, ask="near-tie", candidates=4, random_share=0.0)
    reward: Any = Liking()

    def odd(query: Query) -> bool:
        return int(query.completions[0].split()[-2]) % 2 == 1

    chosen = asked(near, reward=reward)
    assert len(chosen) == 10
    assert all(map(odd, chosen)), "the nearly equal ones"
    assert len(asked(near)) == 10, "without a reward model yet, at random"
    assert not all(map(odd, asked(near)))
    mixed = asked(dataclasses.replace(near, random_share=1.0), reward=reward)
    assert len(mixed) == 10
    assert not all(map(odd, mixed))
    assert asked(near, reward=reward) == chosen, "the same seeds, the same questions"


def test_nothing_is_asked_twice_and_more_is_asked_where_a_decision_says_so() -> None:
    wide = dataclasses.replace(PLAIN, candidates=3)
    first = asked(wide)
    second = asked(wide, asked=first)
    assert not {frozenset(q.completions) for q in first} & {frozenset(q.completions) for q in second}
    assert len(asked(PLAIN, times=2)) == 20


def test_suspicious_samples_come_first_up_to_their_share() -> None:
    suspects = [Query(Prompt(f"odd {i}"), (f"bad {i}", "good"), ("round1", "sft")) for i in range(5)]
    found = asked(dataclasses.replace(PLAIN, mined=0.3), suspects=suspects)
    assert found[:3] == suspects[:3]
    assert len(found) == 10
    later = asked(dataclasses.replace(PLAIN, mined=0.3), suspects=suspects, asked=suspects[:4])
    assert [query for query in later if query in suspects] == suspects[4:], "those that were asked before are not asked again"
    assert not any(query in suspects for query in asked(PLAIN, suspects=suspects)), "none where nobody wants them"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (Rounds(ask="disagreement", candidates=4), "ensemble.members"),
        (Rounds(ask="near-tie"), "candidates"),
        (Rounds(mined=0.1, sentinel=0.5), "watch.every"),
        (Rounds(mined=0.1, watch=Watch(every=2)), "sentinel"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: Rounds, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check_asking(settings)


def test_settings_that_do_are_not() -> None:
    several = Reward(ensemble=Members(members=3))
    check_asking(Rounds(ask="information", candidates=4, reward=several))
    check_asking(Rounds(mined=0.1, sentinel=0.5, watch=Watch(every=2)))
    assert Rounds().ask == "random"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"reward": Reward(ensemble=Members(members=3)), "ppo": Online(critic="reward")}, "one reward model, and there are 3"),
        ({"ppo": Online(batch_size=6, num_generations=4)}, "num_generations 4 must divide batch_size 6"),
        ({"reward": Reward(loss="plackett-luce", batching="pair")}, "needs whole questions in a batch"),
        ({"watch": Watch(every=2, questions=8)}, "somebody who answers at once"),
    ],
)  # fmt: skip
def test_what_a_later_stage_would_refuse_is_refused_before_anybody_is_asked(tmp_path: Path, changes: Any, told: str) -> None:
    settings, prompts = dataclasses.replace(Rounds(), **changes), [Prompt(f"the film {i}") for i in range(300)]
    with Run.open(tmp_path / "run", kind="rounds", settings=settings, quiet=True) as run, pytest.raises(ConfigError, match=told):
        Loop(run, tiny, prompts, prompts, settings, Seeds(0), None)
    assert not (tmp_path / "run" / "feedback.db").exists()
    check_rounds(Rounds(), None)
