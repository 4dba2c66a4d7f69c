"""The numbers that a loop ends with, and the stages before its first round."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tests.tiny_models import tiny

from backflip.records import Prompt, Sample
from backflip.rounds.measure import acceptance, mean_difference, sequence_kl
from backflip.rounds.stages import packed, untrained
from backflip.rounds.story import figures_of
from backflip.seeds import Seeds
from backflip.settings import SFT, Tiny

QUALITY = {
    "accuracy": 0.58,
    "accuracy_low": 0.53,
    "accuracy_high": 0.63,
    "shorter_accuracy": 0.55,
    "shorter_low": 0.5,
    "shorter_high": 0.6,
    "n": 400,
}
GAIN = {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 9}
RESULT = {
    "reward_model": QUALITY,
    "gain": {"proxy": GAIN, "sentinel": GAIN},
    "kl_seq_nats": 5.0,
    "kl_target_nats": 4.0,
    "win_rate_vs_sft": {"mean": 0.7, "low": 0.6, "high": 0.8, "n": 9},
    "sentinel": {"sft": 0.0, "round1": 0.5},
    "rounds": 1,
    "comparisons": 1400,
}


def test_kl_is_the_mean_log_ratio_of_the_policys_own_texts() -> None:
    policy, reference = tiny(1), tiny(2)
    samples = [Sample(Prompt("the film"), "", tokens=(50, 60, 3)), Sample(Prompt("no"), "", tokens=(41, 2))]
    expected = 0.0
    for sample in samples:
        ids = policy.encode(sample.prompt)
        for token in sample.tokens:
            logits = [p.model(torch.tensor([ids])).logits[0, -1] / 0.7 for p in (policy, reference)]
            ours, theirs = (x.log_softmax(-1)[token].item() for x in logits)
            expected += (ours - theirs) / len(samples)
            ids = [*ids, token]
    found = sequence_kl(policy, reference, samples, temperature=0.7, batch_size=1)
    assert found == pytest.approx(expected, abs=1e-4)
    assert sequence_kl(policy, reference, samples, temperature=0.7) == pytest.approx(found, abs=1e-4)
    assert sequence_kl(policy, policy, samples, temperature=0.7) == 0.0


def test_a_gain_is_paired_by_prompt() -> None:
    gain = mean_difference([3.0, 5.0, 4.0], [1.0, 1.0, 4.0])  # gains 2, 4, 0: mean 2, standard deviation 2
    assert gain["mean"] == 2.0
    assert gain["high"] - 2.0 == pytest.approx(1.96 * 2 / 3**0.5)
    assert gain["n"] == 3
    assert mean_difference([1.0], [0.5]) == {"mean": 0.5, "low": 0.5, "high": 0.5, "n": 1}


def test_what_a_loop_must_achieve() -> None:
    assert [line["pass"] for line in acceptance(RESULT)] == [True] * 5
    worse = QUALITY | {"accuracy": 0.52, "accuracy_low": 0.47}
    flat = {"mean": 0.1, "low": -0.1, "high": 0.3, "n": 9}
    lines = acceptance(RESULT | {"reward_model": worse, "gain": {"proxy": GAIN, "gold": flat}, "kl_seq_nats": 6.1})
    assert [(line["value"], line["bar"], line["pass"]) for line in lines] == [
        (0.52, 0.5, False),  # above a coin, but its interval holds the coin
        (0.52, 0.55, False),
        (0.5, 0.0, True),
        (0.1, 0.0, False),
        (6.1, 6.0, False),
    ]


def test_headlines_put_the_reward_model_beside_its_bars() -> None:
    figures = {figure.label: figure for figure in figures_of(RESULT, "round1")}
    assert figures["Reward model right"].value == "58.0%"
    assert figures["Reward model right"].interval == "95 % interval 53.0% to 63.0%"
    assert "a coin: 50 %" in figures["Reward model right"].note
    assert figures["Shorter reply right"].value == "55.0%"
    assert figures["Sentinel reward"].note == "while the proxy gained +0.50"
    assert "Gold reward" not in figures
    assert figures["Comparisons"].note == "in 1 round"
    without = figures_of({**RESULT, "win_rate_vs_sft": None, "gold": {"sft": 0.0, "round1": 1.0}}, "round1")
    labels = [figure.label for figure in without]
    assert "Wins against sft" not in labels
    assert "Gold reward" in labels


@pytest.mark.parametrize("length", [5, 7, 64])
def test_packing_keeps_every_token_in_order(length: int) -> None:
    policy = tiny()
    documents = [(Prompt("the film"), " was good."), (Prompt(""), "a cat sat"), (Prompt("no end"), " in sight")]
    windows = packed(policy, documents, dataclasses.replace(SFT(), max_length=length))
    stream = [token for window in windows for token in (*window.query, *window.response)]
    assert all(len(window.query) + len(window.response) == length for window in windows[:-1])
    whole = "the film was good.<|end|>a cat sat<|end|>no end in sight<|end|>"
    read = policy.tokenizer.decode(stream, skip_special_tokens=False)
    assert read in (whole, whole.removesuffix("<|end|>"))  # a last token alone in its window has nothing to predict it


def test_a_tiny_policy_has_the_size_asked_for() -> None:
    size = Tiny(vocabulary=300, hidden_size=16, layers=3, heads=2, context=40)
    policy = untrained(size, [(Prompt("the film"), " was good."), (Prompt("no"), " end")], Seeds(0))
    config = policy.model.config
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (16, 3, 2)
    assert policy.context == 40
    assert len(policy.tokenizer) <= 300
    again = untrained(size, [(Prompt("the film"), " was good."), (Prompt("no"), " end")], Seeds(0))
    ours, theirs = (p.model.state_dict() for p in (policy, again))
    assert all(ours[name].equal(theirs[name]) for name in ours)
