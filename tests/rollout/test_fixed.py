"""The engine of fixed shapes: it writes what the plain one writes, and does nothing that a CUDA graph could not repeat."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.rollout.test_engine import FULL, KINDS, model_of, queries, texts
from tests.tiny_models import tiny
from tests.watch import NobodyWaits, OneDevice

from backflip.policies.language import LanguagePolicy
from backflip.policies.llama import LlamaForward
from backflip.policies.loading import with_lora
from backflip.rollout import fixed, kept
from backflip.rollout.draws import Draws
from backflip.rollout.fixed import Desk, Need, Rollouts, window_of
from backflip.rollout.graphs import Graphs
from backflip.rollout.local import generate
from backflip.rollout.sampling import repel, truncate
from backflip.seeds import Seeds
from backflip.settings import Sampling

torch.set_num_threads(1)

SETTINGS: list[dict[str, Any]] = [
    {},
    {"ignore_eos": True},
    {"repetition_penalty": 1.8},
    {"stop": ("a", "th")},
    {"stop": ("e", "zz"), "ignore_eos": True},
    {"top_k": 12, "top_p": 0.9, "min_p": 0.05, "temperature": 1.4},
    {"max_new_tokens": 1},
]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small enough sizes for a dozen tokens to meet all of them."""
    for name, value in (("FEWEST", 1), ("NARROW", 4), ("LOOK_EVERY", 3), ("READ_AT_ONCE", 40)):
        monkeypatch.setattr(fixed, name, value)


def check_same(policy: LanguagePolicy, rows: list[list[int]], settings: Sampling, *, first: int = 0) -> None:
    """Tokens, ends and log-probabilities are those of the plain engine, but for numbers drawn on the border of two tokens."""
    plain = generate(policy, rows, settings, seeds=Seeds(1), first=first)
    other = generate(policy, rows, settings, seeds=Seeds(1), first=first, fixed=True)
    same_B = torch.tensor([a == b for a, b in zip(texts(plain), texts(other), strict=True)])
    for row in (~same_B).nonzero().flatten().tolist():
        drawn = torch.rand(settings.max_new_tokens, generator=Seeds(1).torch("row", first + row)).tolist()
        assert on_a_border(policy, rows[row], texts(plain)[row], texts(other)[row], settings, drawn), row
    assert torch.equal(plain.finished_B[same_B], other.finished_B[same_B])
    n = min(plain.logps_BT.shape[1], other.logps_BT.shape[1])
    torch.testing.assert_close(plain.logps_BT[same_B, :n], other.logps_BT[same_B, :n], rtol=0, atol=1e-5)


@torch.no_grad()
def on_a_border(
    policy: LanguagePolicy, query: list[int], one: list[int], two: list[int], settings: Sampling, drawn: list[float]
) -> bool:
    """Whether the number drawn where two completions part is, up to the last digits of float32 sums, the border between their
    two tokens in the distribution that is sampled: then, and only then, either token is right."""
    place, tokens = next((t, sorted(pair)) for t, pair in enumerate(zip(one, two, strict=False)) if pair[0] != pair[1])
    before = query + one[:place]
    logits_BV = policy.model(torch.tensor([before])).logits[:, -1].float()
    seen_BV = torch.zeros_like(logits_BV, dtype=torch.bool)
    seen_BV[0, before] = True
    if settings.repetition_penalty != 1.0:
        logits_BV = repel(logits_BV, seen_BV, settings.repetition_penalty)
    logits_BV = truncate(logits_BV / settings.temperature, top_k=settings.top_k, top_p=settings.top_p, min_p=settings.min_p)
    upto_V = logits_BV[0].double().softmax(-1).cumsum(-1)
    return all(abs(float(upto_V[token]) - drawn[place]) < 1e-5 for token in range(tokens[0], tokens[1]))


def test_a_wrong_token_is_no_border() -> None:
    policy, settings = model_of("llama"), dataclasses.replace(FULL, ignore_eos=True)
    [row] = texts(generate(policy, [[5, 6]], settings, seeds=Seeds(1)))
    drawn = torch.rand(settings.max_new_tokens, generator=Seeds(1).torch("row", 0)).tolist()
    for place in (0, 5):
        for wrong in (row[place] + 1, row[place] - 1):
            assert not on_a_border(policy, [5, 6], row, [*row[:place], wrong, *row[place + 1 :]], settings, drawn)


@pytest.mark.parametrize("changes", SETTINGS, ids=lambda c: ", ".join(c) or "plain")
@pytest.mark.parametrize("kind", KINDS[:4])
def test_it_writes_what_the_plain_engine_writes(kind: str, changes: dict[str, Any]) -> None:
    policy = model_of(kind)
    for slots in (1, 5, 64):
        check_same(policy, queries(30), dataclasses.replace(FULL, slots=slots, **changes))


def test_groups_and_single_rows_and_long_prompts() -> None:
    policy = model_of("qwen2")
    check_same(policy, [[5, 6, 7]] * 17, dataclasses.replace(FULL, slots=4))
    check_same(policy, [[9]], FULL, first=3)
    check_same(policy, [[5, 6]] * 6 + [list(range(40, 80))] + [[7]] * 3, dataclasses.replace(FULL, slots=2, ignore_eos=True))


def test_an_adapter_is_part_of_the_policy() -> None:
    policy = with_lora(model_of("llama"), rank=2, seeds=Seeds(0))
    without = texts(generate(policy, queries(9), FULL, seeds=Seeds(0), fixed=True))
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.5, generator=torch.Generator().manual_seed(2))
    check_same(policy, queries(9), FULL)
    before = kept.Kept.of(policy.model, None)
    with policy.model.disable_adapter():  # another path through the model, which a recording would not take
        assert kept.Kept.of(policy.model, None) is not before
        assert texts(generate(policy, queries(9), FULL, seeds=Seeds(0), fixed=True)) == without


def test_sizes() -> None:
    assert [window_of(n, 1000) for n in (1, 4, 5, 32, 33, 65, 999)] == [4, 4, 8, 32, 40, 80, 1000]
    assert all(n <= window_of(n, 4096) <= max(n + 4, n * 5 / 4) for n in range(1, 4097))
    assert len({window_of(n, 4096) for n in range(1, 4097)}) <= 8 + 4 * 7
    draws = draws_of(tiny(), queries(5), dataclasses.replace(FULL, slots=3))
    assert Need.of(queries(5), draws) == (8, 3, 16)  # idle slots need a job too; 4 + 12 columns
    assert Need(8, 3, 20).joined(Need(4, 9, 4)) == (8, 9, 20)
    assert not Need(8, 3, 20).fits(Need(4, 9, 4))


def draws_of(policy: LanguagePolicy, rows: list[list[int]], settings: Sampling) -> Draws:
    return Draws(
        rows, settings, seeds=Seeds(0), rows=range(len(rows)), eos_id=policy.eos_id, fill_id=policy.fill_id, decode=policy.decode,
        vocabulary=policy.embeddings, device=policy.device,
    )  # fmt: skip


def desk_of(policy: LanguagePolicy, rows: list[list[int]], settings: Sampling) -> tuple[Desk, Draws]:
    draws = draws_of(policy, rows, settings)
    return Desk(LlamaForward(policy.model), draws, Need.of(rows, draws), policy.device), draws


# What a graph can repeat


@pytest.mark.parametrize("changes", SETTINGS, ids=lambda c: ", ".join(c) or "plain")
def test_a_step_never_waits_for_the_device(changes: dict[str, Any]) -> None:
    rows = queries(6)
    desk, draws = desk_of(model_of("qwen3"), rows, dataclasses.replace(FULL, **changes))
    desk.clear(draws)
    with torch.no_grad():
        desk.enter(list(range(6)), rows, 0)
        with NobodyWaits() as watch:
            for _ in range(5):
                desk.step(8, desk.need.columns)
    assert {"index_put_", "searchsorted", "mm"} <= watch.seen


def test_the_watch_notices() -> None:
    x = torch.arange(4)
    for waiting in (
        lambda: x.sum().item(),
        lambda: x[x > 1],
        lambda: int(x.max()),
        lambda: torch.tensor([1]),
        lambda: x.nonzero(),
    ):
        with pytest.raises(AssertionError), NobodyWaits():
            waiting()


@pytest.mark.parametrize("changes", SETTINGS, ids=lambda c: ", ".join(c) or "plain")
def test_everything_is_on_the_device(changes: dict[str, Any]) -> None:
    policy, rows = model_of("qwen3"), queries(6)
    policy.model.to("meta")  # a device that is not the host, and that everybody has
    desk, draws = desk_of(policy, rows, dataclasses.replace(FULL, **changes))
    with torch.no_grad(), OneDevice():
        desk.clear(draws)
        desk.enter(list(range(6)), rows, 0)
        desk.step(8, 8)
        desk.keep([0, 3], 8)
        draws.copy_(desk.draws)
    assert desk.token_B.device.type == draws.token_NT.device.type == "meta"
    with pytest.raises(AssertionError, match="two devices"), OneDevice():
        torch.where(torch.ones(2, device="meta") > 0, torch.ones(2), torch.ones(2, device="meta"))


def addresses(desk: Desk) -> dict[str, tuple[int, torch.Size]]:
    """Where every tensor of a desk stands."""
    tables = {f"draws.{name}": table for name, table in desk.draws._tables()}
    tables |= {name: value for name, value in vars(desk).items() if isinstance(value, torch.Tensor)}
    tables |= {f"{kind}.{i}": t for kind in ("keys", "values") for i, t in enumerate(getattr(desk.cache, kind))}
    return {name: (table.data_ptr(), table.shape) for name, table in tables.items()}


@pytest.mark.parametrize("changes", SETTINGS, ids=lambda c: ", ".join(c) or "plain")
def test_nothing_ever_moves(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = queries(30)
    desk, draws = desk_of(model_of("llama"), rows, dataclasses.replace(FULL, slots=8, **changes))
    before, shapes, step = addresses(desk), set(), desk.step

    def watched(slots: int, window: int) -> None:
        step(slots, window)
        shapes.add((slots, window))
        assert addresses(desk) == before

    monkeypatch.setattr(desk, "step", watched)
    with torch.no_grad():
        for _ in range(2):
            Rollouts(desk, rows).go(draws)
    assert addresses(desk) == before
    assert len(before) >= 3 + 2 + 2 + 2 * 2 + 6
    if "max_new_tokens" not in changes:
        assert {slots for slots, _ in shapes} <= set(desk.sizes)
        assert len({window for _, window in shapes}) > 2  # the window grew, so there was something to keep still
    assert len(shapes) <= len(desk.sizes) * 6


class Tape:
    """A recorder that, like a graph, repeats calls exactly and does nothing while it records."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def warm_up(self, work: Callable[[], None]) -> None:
        self.said.append("warm up")
        work()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        self.said.append("record")
        return lambda: (self.said.append("replay"), work())[1]  # type: ignore[func-returns-value]


def test_a_shape_is_recorded_at_its_second_call() -> None:
    tape, done = Tape(), []
    graphs = Graphs(tape)

    def work(*shape: int) -> None:
        done.append(shape)

    for shape in ((8, 128), (8, 128), (8, 256), (8, 128), (8, 256)):
        graphs(work, *shape)
    assert tape.said == ["warm up", "record", "replay", "warm up", "replay", "record", "replay"]
    assert done == [(8, 128), (8, 128), (8, 256), (8, 128), (8, 256)]
    Graphs(None)(work, 1)
    assert done[-1] == (1,)


def test_recordings_outlive_a_rollout_and_an_update(monkeypatch: pytest.MonkeyPatch) -> None:
    tapes: list[Tape] = []
    monkeypatch.setattr(fixed, "recorder_for", lambda device: tapes.append(Tape()) or tapes[-1])
    policy = model_of("mistral")
    check_same(policy, queries(30), dataclasses.replace(FULL, slots=8))
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(0.9)  # in place, as the optimizer does
    check_same(policy, queries(30), dataclasses.replace(FULL, slots=8))
    check_same(policy, queries(29), dataclasses.replace(FULL, slots=8))
    assert len(tapes) == 1
    assert tapes[0].said.count("record") <= len(set(tapes[0].said)) * 6
    assert tapes[0].said.count("replay") > 2 * tapes[0].said.count("record")


# What is kept between rollouts


@pytest.mark.parametrize("adapted", [False, True])
def test_copies_in_another_precision_follow_the_weights(adapted: bool) -> None:
    policy = tiny()
    if adapted:
        policy = with_lora(policy, rank=2, seeds=Seeds(0))
    settings = dataclasses.replace(FULL, precision="bfloat16")
    check_same(policy, queries(9), settings)
    forward = kept.Kept.of(policy.model, torch.bfloat16).forward
    where = [ours.data_ptr() for ours, _ in forward.copies]
    assert len(where) >= 2 * 7 + 1
    assert all(ours.dtype == torch.bfloat16 for ours, _ in forward.copies)
    before = generate(policy, queries(9), settings, seeds=Seeds(1)).logps_BT
    with torch.no_grad():
        for _, parameter in policy.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    check_same(policy, queries(9), settings)
    assert not torch.equal(before, generate(policy, queries(9), settings, seeds=Seeds(1)).logps_BT)
    assert kept.Kept.of(policy.model, torch.bfloat16).forward is forward
    assert [ours.data_ptr() for ours, _ in forward.copies] == where
    assert all(p.dtype == torch.float32 for p in policy.model.parameters())


def test_weights_that_moved_are_noticed() -> None:
    policy = model_of("llama")
    check_same(policy, queries(5), FULL)
    before = kept.Kept.of(policy.model, None)
    assert kept.Kept.of(policy.model, None) is before
    for parameter in policy.model.parameters():
        parameter.data = parameter.data * 0.5
    assert kept.Kept.of(policy.model, None) is not before
    check_same(policy, queries(5), FULL)


def test_desks_grow_and_the_oldest_goes() -> None:
    policy = model_of("qwen2")
    for n in (3, 20, 5):
        check_same(policy, queries(n), dataclasses.replace(FULL, slots=16))
    desks = kept.Kept.of(policy.model, None).desks
    assert [desk.need for desk in desks] == [(32, 16, 20)]
    for temperature in (1.5, 2.0):
        check_same(policy, queries(3), dataclasses.replace(FULL, temperature=temperature))
    desks = kept.Kept.of(policy.model, None).desks
    assert [desk.draws.settings.temperature for desk in desks] == [1.5, 2.0]


def test_what_holds_too_much_memory_or_breaks_off_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = model_of("llama")
    check_same(policy, queries(3), FULL)
    desks = kept.Kept.of(policy.model, None).desks
    # 2 layers, keys and values, 4 slots, 1 head of 8, 16 columns, 4 bytes
    assert desks[0].n_bytes == 2 * 2 * 4 * 1 * 8 * 16 * 4
    with monkeypatch.context() as patch:
        patch.setattr(kept, "_allowed", lambda device: desks[0].n_bytes - 1)
        check_same(policy, queries(3), FULL)
    assert kept.Kept.of(policy.model, None).desks == []
    check_same(policy, queries(3), FULL)
    monkeypatch.setattr(Desk, "step", lambda *shape: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        generate(policy, queries(3), FULL, seeds=Seeds(0), fixed=True)
    assert kept.Kept.of(policy.model, None).desks == []


@pytest.mark.parametrize("adapted", [False, True])
def test_nothing_is_kept_of_a_model_that_is_gone(adapted: bool) -> None:
    policy = model_of("llama")
    if adapted:
        policy = with_lora(policy, rank=2, seeds=Seeds(0))
    for precision in ("model", "bfloat16"):
        generate(policy, queries(3), dataclasses.replace(FULL, precision=precision), seeds=Seeds(0), fixed=True)
    gc.collect()
    before = len(kept._KEPT)
    del policy
    gc.collect()
    assert len(kept._KEPT) == before - 1


def test_a_desk_goes_without_waiting_for_the_collector() -> None:
    import weakref

    desk, draws = desk_of(model_of("llama"), queries(3), FULL)
    with torch.no_grad():
        Rollouts(desk, queries(3)).go(draws)
    tensor = weakref.ref(desk.cache.keys[0])
    gc.disable()
    try:
        del desk
        assert tensor() is None  # on a GPU these are gigabytes
    finally:
        gc.enable()


def test_a_damaged_rollout_leaves_no_trace() -> None:
    from backflip.errors import NumericsError

    policy = model_of("llama")
    good = generate(policy, queries(9), FULL, seeds=Seeds(0), fixed=True)
    weight = next(policy.model.parameters())
    with torch.no_grad():
        saved = weight.clone()
        weight.fill_(float("nan"))
        with pytest.raises(NumericsError, match="not numbers"):
            generate(policy, queries(9), FULL, seeds=Seeds(0), fixed=True)
        weight.copy_(saved)
    again = generate(policy, queries(9), FULL, seeds=Seeds(0), fixed=True)
    assert torch.equal(good.logps_BT, again.logps_BT)
