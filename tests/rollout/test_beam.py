"""Beam search against enumeration, against transformers' own, and independent of who shares the batch."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny_models import PROMPTS, QUERIES, nothing, small_ppo, tiny, tiny_of
from tests.tiny_seq2seq import tiny_seq2seq

from backflip.errors import ConfigError, NumericsError
from backflip.job_settings import RoundsJob
from backflip.lab.exact_training import exact_policy
from backflip.policies.language import LanguagePolicy
from backflip.rollout.beam import beam_search
from backflip.rollout.draws import Rollout
from backflip.rollout.local import generate, generate_samples
from backflip.runs import Run
from backflip.seeds import Seeds
from backflip.settings import Rounds, Sampling
from backflip.worlds.exact import ExactWorld
from backflip.worlds.exact_text import prompts_of

torch.set_num_threads(1)

KINDS = ["llama", "gpt2", "t5", "bart"]
PENALTIES = [-1.0, 0.0, 0.5, 1.0, 2.0]


def policy_of(kind: str, seed: int = 0) -> LanguagePolicy:
    """A tiny model whose end-of-text token is likely enough to be met at every length."""
    policy = tiny_seq2seq(kind, seed=seed) if kind in ("t5", "bart") else tiny_of(kind, seed=seed)
    head = policy.model.get_output_embeddings()
    bias = torch.zeros(head.weight.shape[0])
    bias[policy.eos_id] = {"llama": 2.5, "gpt2": 2.0, "t5": 1.0, "bart": 5.0}[kind]
    head.register_forward_hook(lambda module, given, logits: logits + bias)
    return policy


def rows(rollout: Rollout) -> list[list[int]]:
    """The tokens of each completion."""
    lengths = rollout.tokens.mask_BT.sum(1).tolist()
    return [row[:n] for row, n in zip(rollout.tokens.response_BT.tolist(), lengths, strict=True)]


def worths(rollout: Rollout, alpha: float) -> list[float]:
    """What each completion is worth."""
    lengths = rollout.tokens.mask_BT.sum(1)
    return ((rollout.logps_BT * rollout.tokens.mask_BT).double().sum(1) / lengths**alpha).tolist()


def theirs(policy: LanguagePolicy, queries: list[list[int]], limit: int, **options: Any) -> list[list[int]]:
    """What transformers writes for each query alone, its end-of-text token included."""
    found = []
    for query in queries:
        out = policy.model.generate(
            input_ids=torch.tensor([query]), attention_mask=torch.ones(1, len(query), dtype=torch.long), do_sample=False,
            max_new_tokens=limit, pad_token_id=policy.fill_id, eos_token_id=policy.eos_id, **options,
        )[0].tolist()  # fmt: skip
        row = out[len(query) :] if policy.form.one_text else out[1:]
        found.append(row[: row.index(policy.eos_id) + 1] if policy.eos_id in row else row)
    return found


# Width 1 is greedy decoding


@pytest.mark.parametrize("kind", KINDS)
def test_width_one_is_greedy_decoding(kind: str) -> None:
    lengths = set()
    for seed in range(3):
        policy = policy_of(kind, seed)
        expected = theirs(policy, QUERIES, 8, num_beams=1)
        for alpha in (0.0, 1.0, 3.0):
            found = beam_search(policy, QUERIES, width=1, max_new_tokens=8, length_penalty=alpha)
            assert rows(found) == expected
        lengths |= {len(row) for row in expected}
    assert 8 in lengths
    assert min(lengths) < 8, "some completions must end by themselves for this to say anything"


# A width that forgets nothing finds the best there is


def best(world: ExactWorld, prompt: int, alpha: float, eos: int | None) -> tuple[list[int], float]:
    """The completion worth most among all, by enumeration: tokens up to the first `eos`, or all."""
    found: dict[tuple[int, ...], float] = {}
    prompts = torch.tensor([prompt])
    for tokens in itertools.product(range(world.vocab), repeat=world.length):
        n = tokens.index(eos) + 1 if eos in tokens else world.length
        logps = world.logps(world.reference, prompts, torch.tensor([tokens]))[0, :n]
        found[tokens[:n]] = float(logps.sum()) / n**alpha
    winner = max(found, key=lambda row: found[row])
    return list(winner), found[winner]


@pytest.mark.parametrize("alpha", PENALTIES)
@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize(("vocab", "length"), [(2, 3), (3, 3), (4, 2)])
def test_a_width_that_forgets_nothing_finds_the_best(vocab: int, length: int, ends: bool, alpha: float) -> None:
    exact = vocab ** (length - 1)
    for seed in range(4):
        world = ExactWorld(vocab=vocab, length=length, prompts=2, seed=seed)
        policy = exact_policy(world)
        if ends:
            policy.tokenizer.eos_token_id = 0  # any token of the world can end a text
        queries = [policy.encode(p) for p in prompts_of(world)]
        found = beam_search(policy, queries, width=exact, max_new_tokens=length, length_penalty=alpha)
        wanted = [best(world, p, alpha, 0 if ends else None) for p in range(2)]
        assert rows(found) == [row for row, _ in wanted]
        assert worths(found, alpha) == pytest.approx([worth for _, worth in wanted], abs=1e-6)
        assert found.finished_B.tolist() == [ends and row[-1] == 0 for row, _ in wanted]
        for width in range(1, exact + 3):
            other = worths(beam_search(policy, queries, width=width, max_new_tokens=length, length_penalty=alpha), alpha)
            assert all(a <= b + 1e-6 for a, b in zip(other, worths(found, alpha), strict=True))


def test_the_world_s_own_end_costs_nothing() -> None:
    world = ExactWorld(vocab=3, length=3, prompts=2, seed=5)
    policy = exact_policy(world)
    queries = [policy.encode(p) for p in prompts_of(world)]
    found = beam_search(policy, queries, width=9, max_new_tokens=4, length_penalty=0.0)
    top = world.sequence_logps(world.reference).max(dim=1)
    assert [row[:3] for row in rows(found)] == world.sequences[top.indices].tolist()
    assert worths(found, 0.0) == pytest.approx(top.values.tolist(), abs=1e-6)
    assert found.finished_B.all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), alpha=st.floats(-2, 3), width=st.integers(1, 6))
def test_no_beam_beats_the_best_and_what_is_returned_is_what_it_says(seed: int, alpha: float, width: int) -> None:
    world = ExactWorld(vocab=3, length=3, prompts=1, seed=seed)
    policy = exact_policy(world)
    policy.tokenizer.eos_token_id = 1
    found = beam_search(
        policy, [policy.encode(p) for p in prompts_of(world)], width=width, max_new_tokens=3, length_penalty=alpha
    )
    [row] = rows(found)
    logps = world.logps(world.reference, torch.tensor([0]), torch.tensor([row + [0] * (3 - len(row))]))[0, : len(row)]
    assert found.logps_BT[0, : len(row)].tolist() == pytest.approx(logps.tolist(), abs=1e-6)
    assert (1 in row) == bool(found.finished_B[0])
    assert worths(found, alpha)[0] <= best(world, 0, alpha, 1)[1] + 1e-6


def to_the_limit(world: ExactWorld, eos: int, width: int, alpha: float) -> tuple[list[int], float]:
    """Beam search by lists, which never stops before the limit."""

    def logps(row: list[int]) -> list[float]:
        tokens = torch.tensor([[*row, 0]])
        place = int(world.prefixes(tokens)[0, -1])
        return world.reference[0, place].log_softmax(-1).tolist()

    beams: list[tuple[float, list[int]]] = [(0.0, [])]
    kept: list[tuple[float, list[int]]] = []
    for n in range(1, world.length + 1):
        more = [(total + logp, [*row, v]) for total, row in beams for v, logp in enumerate(logps(row))]
        more.sort(key=lambda beam: -beam[0])
        kept += [(total / n**alpha, row) for total, row in more[:width] if row[-1] == eos or n == world.length]
        beams = [beam for beam in more if beam[1][-1] != eos][:width]
    worth, row = max(kept, key=lambda beam: beam[0])
    return row, worth


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6), vocab=st.integers(2, 4), length=st.integers(2, 5), alpha=st.floats(-3, 3),
    width=st.integers(2, 5), sharpness=st.floats(1, 5),
)  # fmt: skip
def test_stopping_early_changes_nothing(seed: int, vocab: int, length: int, alpha: float, width: int, sharpness: float) -> None:
    world = ExactWorld(vocab=vocab, length=length, prompts=1, seed=seed)
    world.reference *= sharpness
    policy = exact_policy(world)
    policy.tokenizer.eos_token_id = 0
    found = beam_search(
        policy, [policy.encode(p) for p in prompts_of(world)], width=width, max_new_tokens=length, length_penalty=alpha
    )
    row, worth = to_the_limit(world, 0, width, alpha)
    assert worths(found, alpha) == pytest.approx([worth], abs=1e-6)
    assert rows(found) == [row]


def test_a_search_that_nothing_can_win_any_more_is_over() -> None:
    policy, calls = policy_of("gpt2"), []
    policy.model.register_forward_hook(lambda module, given, output: calls.append(len(output.logits)))
    found = beam_search(policy, QUERIES, width=2, max_new_tokens=40, length_penalty=0.0)
    first, *later = calls
    assert first == len(QUERIES), "the queries are read once, not for every beam"
    assert later == sorted(later, reverse=True), "a query that is done is not computed any more"
    assert len(set(later)) > 1
    assert max(map(len, rows(found))) <= len(calls) < 40


# Equal to transformers' beam search, which compares by the same measure


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [2, 3, 5])
def test_transformers_finds_the_same(kind: str, width: int) -> None:
    ended = set()
    for seed, alpha in itertools.product(range(2), (0.0, 1.0, 2.0)):
        policy = policy_of(kind, seed)
        # "never": like ours, it stops when nothing under way can win any more.
        expected = theirs(policy, QUERIES, 6, num_beams=width, length_penalty=alpha, early_stopping="never")
        found = beam_search(policy, QUERIES, width=width, max_new_tokens=6, length_penalty=alpha)
        assert rows(found) == expected
        ended |= set(found.finished_B.tolist())
    assert ended == {True, False}


# What is returned


@pytest.mark.parametrize("kind", KINDS)
def test_log_probabilities_are_those_of_scoring(kind: str) -> None:
    policy = tiny_seq2seq(kind) if kind in ("t5", "bart") else tiny_of(kind)
    found = beam_search(policy, QUERIES, width=3, max_new_tokens=5)
    scored = policy.score(found.tokens).logps_BT.detach() * found.tokens.mask_BT
    torch.testing.assert_close(found.logps_BT, scored, rtol=0, atol=1e-5)
    assert (found.tokens.response_BT[found.tokens.mask_BT == 0] == policy.fill_id).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_does_not_depend_on_the_others(kind: str) -> None:
    policy = policy_of(kind)
    together = rows(beam_search(policy, QUERIES, width=3, max_new_tokens=7))
    alone = [rows(beam_search(policy, [query], width=3, max_new_tokens=7))[0] for query in QUERIES]
    backwards = rows(beam_search(policy, QUERIES[::-1], width=3, max_new_tokens=7))[::-1]
    few = rows(beam_search(policy, QUERIES, width=3, max_new_tokens=7, slots=7))
    assert together == alone == backwards == few
    assert len({len(row) for row in together}) > 1


class WithoutCache(torch.nn.Module):
    """A model that keeps no key-value cache, or one that cannot choose rows."""

    def __init__(self, model: Any, *, stubborn: bool) -> None:
        super().__init__()
        self.inner, self.stubborn, self.config = model, stubborn, model.config
        self.get_input_embeddings = model.get_input_embeddings
        if model.config.is_encoder_decoder:
            self.get_encoder = model.get_encoder

    def forward(self, past_key_values: Any = None, use_cache: bool = False, **options: Any) -> Any:
        assert past_key_values is None, "a cache that cannot choose rows must not be used again"
        output = self.inner(use_cache=False, **options)
        if self.stubborn:
            output.past_key_values = object()
        return output


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
@pytest.mark.parametrize("stubborn", [True, False])
def test_without_a_cache_the_same_is_found(kind: str, stubborn: bool) -> None:
    policy = policy_of(kind)
    plain = LanguagePolicy(WithoutCache(policy.model, stubborn=stubborn), policy.tokenizer)
    one, other = (beam_search(p, QUERIES, width=3, max_new_tokens=6) for p in (policy, plain))
    assert rows(one) == rows(other)
    torch.testing.assert_close(one.logps_BT, other.logps_BT, rtol=0, atol=1e-5)


def test_settings_reach_the_search() -> None:
    policy = policy_of("llama")
    asked = Sampling(num_beams=4, length_penalty=0.0, max_new_tokens=6, temperature=0.3)
    expected = beam_search(policy, QUERIES, width=4, max_new_tokens=6, length_penalty=0.0)
    for seed in range(2):
        found = generate(policy, QUERIES, asked, seeds=Seeds(seed), width=12)
        assert rows(found) == rows(expected)
        assert found.tokens.query_BQ.shape == (4, 12)
        torch.testing.assert_close(found.logps_BT, expected.logps_BT, rtol=0, atol=1e-5)
    longer = generate(policy, QUERIES, dataclasses.replace(asked, length_penalty=4.0), seeds=Seeds(0))
    assert longer.tokens.mask_BT.sum() > expected.tokens.mask_BT.sum()
    [[sample], *_] = generate_samples(policy, PROMPTS, n=1, seeds=Seeds(0), settings=asked)
    assert sample.text == policy.decode(list(sample.tokens))
    rounded = generate(policy, QUERIES, dataclasses.replace(asked, precision="bfloat16"), seeds=Seeds(0))
    assert torch.isfinite(rounded.logps_BT).all()
    assert not torch.equal(rounded.logps_BT, expected.logps_BT)


# What is refused


@pytest.mark.parametrize("change", [{"top_k": 3}, {"top_p": 0.9}, {"stop": (".",)}, {"ignore_eos": True}])
def test_settings_of_sampling_are_refused(change: dict[str, Any]) -> None:
    asked = dataclasses.replace(Sampling(num_beams=2, max_new_tokens=4), **change)
    with pytest.raises(ConfigError, match=f"num_beams 2 .*{next(iter(change))}.* set num_beams to 1 to sample"):
        generate(tiny(), QUERIES, asked, seeds=Seeds(0))


def test_several_completions_of_a_prompt_are_refused() -> None:
    with pytest.raises(ConfigError, match="the same completion of a prompt every time, so 2 of them say nothing new"):
        generate_samples(tiny(), PROMPTS, n=2, seeds=Seeds(0), settings=Sampling(num_beams=2))


def test_reinforcement_learning_refuses_beams(tmp_path: Any) -> None:
    from backflip.job_settings import RewardJob
    from backflip.jobs import reward_job
    from backflip.rounds.material import check_job
    from backflip.train.online import improve

    refused = pytest.raises(ConfigError, match=r"needs completions drawn from the policy; beam search picks .* num_beams to 1")
    beams = small_ppo(num_beams=2, ignore_eos=False)
    with Run.open(tmp_path / "ppo", kind="ppo", settings=beams, quiet=True) as run, refused:
        improve(tiny(), PROMPTS, nothing, beams, run, seeds=Seeds(0))
    for loop in (Rounds(sampling=Sampling(num_beams=2)), Rounds(ppo=beams)):
        with refused:
            check_job(RoundsJob(policy="x", data="y", train=loop))
    with refused:
        reward_job(RewardJob(policy="x", data="y", output=str(tmp_path / "reward"), sampling=Sampling(num_beams=2)))
    assert not (tmp_path / "reward").exists()


def test_a_width_of_nothing_and_damaged_weights() -> None:
    policy = tiny(name="broken")
    with pytest.raises(ValueError, match="a width of 1 or more, not 0"):
        beam_search(policy, QUERIES, width=0, max_new_tokens=4)
    with torch.no_grad():
        policy.model.model.norm.weight.fill_(math.nan)
    for width in (1, 3):
        with pytest.raises(NumericsError, match=r"'broken' gives probabilities that are not numbers \(row 9\)"):
            beam_search(policy, QUERIES, width=width, max_new_tokens=4, first=8)
