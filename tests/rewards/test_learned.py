"""The learned reward model against transformers, and its life on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny_models import padless_tokenizer, tiny, tiny_of, weights

from backflip.errors import ModelError
from backflip.policies.loading import with_lora
from backflip.records import Message, Prompt
from backflip.rewards.learned import RewardModel
from backflip.seeds import Seeds

torch.set_num_threads(1)

PROMPTS = ["the film", "a cat sat on the mat", "no", ""]
TEXTS = [" was good.", " and saw a dog.", "", "the plot"]


def model_of(kind: str = "llama", **options: Any) -> RewardModel:
    return RewardModel.from_policy(tiny_of(kind), seeds=Seeds(0), **options)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
@pytest.mark.parametrize("score_at", ["eos", "last"])
def test_plain_transformers_gives_the_same_scores_up_to_the_bias(kind: str, score_at: Any, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    model = model_of(kind, score_at=score_at)
    model.normalize(model(PROMPTS, TEXTS), mean=0.5, std=2.0)
    before = model(PROMPTS, TEXTS)
    model.fold()
    assert model.gain.item() == 1.0
    assert model(PROMPTS, TEXTS) == pytest.approx(before, abs=1e-5)
    model.save(tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(str(tmp_path))
    rows = [model.encode(Prompt(p), t) for p, t in zip(PROMPTS, TEXTS, strict=True)]
    assert len({len(row) for row in rows}) > 1
    width = max(map(len, rows))
    fill = model.tokenizer.pad_token_id
    ids = torch.tensor([row + [fill] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    logits = plain(input_ids=ids, attention_mask=mask).logits.squeeze(-1)
    assert (logits + model.bias).tolist() == pytest.approx(before, abs=1e-5)


def test_scores_do_not_depend_on_the_batch() -> None:
    model = model_of()
    together = model(PROMPTS, TEXTS)
    assert [model([p], [t])[0] for p, t in zip(PROMPTS, TEXTS, strict=True)] == pytest.approx(together, abs=1e-5)
    model.batch_size = 2
    assert model(PROMPTS, TEXTS) == pytest.approx(together, abs=1e-5)
    assert model(PROMPTS[::-1], TEXTS[::-1]) == pytest.approx(together[::-1], abs=1e-5)


def test_what_is_read_is_prompt_completion_and_end() -> None:
    policy = tiny()
    for score_at, end in (("eos", [policy.eos_id]), ("last", [])):
        model = RewardModel.from_policy(policy, seeds=Seeds(0), score_at=score_at, max_length=12)  # type: ignore[arg-type]
        ids = policy.encode(Prompt("the film")) + policy.encode_completion(" was", eos=False)
        assert model.encode(Prompt("the film"), " was") == ids + end
        assert model.encode(Prompt(""), "") == [policy.eos_id]
        long = model.encode(Prompt("abc " * 20), " xyz")
        assert len(long) == 12
        assert policy.decode(long).endswith(" xyz")
    talk = (Message("user", "a film?"),)
    model = model_of()
    assert model([[m.to_json() for m in talk]], ["good"]) == pytest.approx(
        model.scores([model.encode(Prompt(talk), "good")]).tolist()
    )


def test_the_score_of_each_position_is_that_of_the_text_up_to_it() -> None:
    model = model_of()
    model.normalize([1.0, 4.0])
    row = [5, 6, 7, 8]
    scores = model.token_scores(torch.tensor([row]), torch.ones(1, 4, dtype=torch.long))[0]
    expected = [model.scores([row[: t + 1]]).item() for t in range(4)]
    assert scores.tolist() == pytest.approx(expected, abs=1e-5)


def test_normalizing_gives_mean_and_deviation_and_keeps_the_order() -> None:
    model = model_of()
    texts = [tiny().decode([i]) for i in range(2, 40)]
    prompts = ["the film"] * len(texts)
    before = torch.tensor(model(prompts, texts))
    for mean, std in ((0.0, 1.0), (3.0, 0.5), (0.0, 1.0)):
        model.normalize(model(prompts, texts), mean=mean, std=std)
        after = torch.tensor(model(prompts, texts))
        assert after.mean().item() == pytest.approx(mean, abs=1e-4)
        assert after.std(unbiased=False).item() == pytest.approx(std, abs=1e-4)
        torch.testing.assert_close(
            (after - mean) / std, (before - before.mean()) / before.std(unbiased=False), rtol=1e-3, atol=1e-4
        )


def test_scores_that_do_not_vary_are_only_shifted() -> None:
    model = model_of(head_init="zero")
    model.normalize([2.0, 2.0], mean=1.0)
    assert model.gain.item() == 1.0
    assert model.bias == -1.0


@pytest.mark.parametrize("score_at", ["eos", "last"])
def test_what_is_saved_is_what_is_loaded(score_at: Any, tmp_path: Path) -> None:
    model = model_of(score_at=score_at, max_length=20)
    model.normalize(model(PROMPTS, TEXTS), mean=-1.0, std=3.0)
    model.save(tmp_path)
    loaded = RewardModel.load(tmp_path, device="cpu")
    assert loaded(PROMPTS, TEXTS) == model(PROMPTS, TEXTS)
    assert (loaded.bias, loaded.gain.item()) == (model.bias, model.gain.item())
    assert (loaded.score_at, loaded.max_length) == (score_at, 20)
    other = RewardModel.from_policy(tiny_of("llama", seed=9), seeds=Seeds(9), score_at=score_at, max_length=20)
    other.restore(tmp_path)
    assert other(PROMPTS, TEXTS) == model(PROMPTS, TEXTS)


def test_any_classifier_of_one_label_is_a_reward_model(tmp_path: Path) -> None:
    model = model_of()
    model.model.save_pretrained(str(tmp_path))
    model.tokenizer.save_pretrained(str(tmp_path))
    assert RewardModel.load(tmp_path, device="cpu")(PROMPTS, TEXTS) == pytest.approx(model(PROMPTS, TEXTS), abs=1e-6)


def test_a_classifier_of_more_labels_is_none(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    config = model_of().model.config
    config.num_labels = 3
    AutoModelForSequenceClassification.from_config(config).save_pretrained(str(tmp_path))
    tiny().tokenizer.save_pretrained(str(tmp_path))
    with pytest.raises(ModelError, match="is not a reward model: it has 3 labels"):
        RewardModel.load(tmp_path, device="cpu")


def test_a_reward_model_is_a_body_of_its_own() -> None:
    policy = tiny()
    before = weights(policy.model)
    model = RewardModel.from_policy(policy, seeds=Seeds(0))
    with torch.no_grad():
        for _, parameter in model.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(policy.model.state_dict()[name], x) for name, x in before.items())
    twin = RewardModel.copy_of(model)
    assert twin(PROMPTS, TEXTS) == model(PROMPTS, TEXTS)
    with torch.no_grad():
        twin.gain.mul_(2.0)
    assert twin(PROMPTS, TEXTS) != model(PROMPTS, TEXTS)


def test_heads_come_from_the_seed_alone() -> None:
    policy = tiny()
    torch.manual_seed(1)
    one = RewardModel.from_policy(tiny(), seeds=Seeds(4))(PROMPTS, TEXTS)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert RewardModel.from_policy(tiny(), seeds=Seeds(4))(PROMPTS, TEXTS) == one
    assert RewardModel.from_policy(tiny(), seeds=Seeds(5))(PROMPTS, TEXTS) != one
    torch.set_rng_state(state)
    RewardModel.from_policy(policy, seeds=Seeds(4))
    assert torch.equal(torch.get_rng_state(), state), "the global generator is nobody's"


def test_the_head_is_drawn_with_deviation_one_over_root_d_plus_one() -> None:
    draws = torch.cat([RewardModel.from_policy(tiny(), seeds=Seeds(s)).model.score.weight.detach().flatten() for s in range(16)])
    n, std = len(draws), 33**-0.5
    assert n == 16 * 32
    assert abs(draws.mean().item()) < 4 * std / n**0.5
    assert draws.std().item() == pytest.approx(std, rel=4 / (2 * n) ** 0.5)
    assert len(set(draws.tolist())) == n


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_tokenizer_without_padding_gets_its_own(kind: str, tmp_path: Path) -> None:
    policy = tiny_of(kind)
    policy.tokenizer = padless_tokenizer()
    model = RewardModel.from_policy(policy, seeds=Seeds(0))
    assert policy.tokenizer.pad_token_id is None
    assert model.tokenizer.pad_token_id == 280 == model.model.config.pad_token_id
    assert model.model.get_input_embeddings().weight.shape[0] == 281
    together = model(PROMPTS, TEXTS)
    assert [model([p], [t])[0] for p, t in zip(PROMPTS, TEXTS, strict=True)] == pytest.approx(together, abs=1e-5)
    model.save(tmp_path)
    assert RewardModel.load(tmp_path, device="cpu")(PROMPTS, TEXTS) == together


def test_the_body_of_an_adapted_policy_has_the_adapter_in_it() -> None:
    policy = with_lora(tiny(), rank=2, seeds=Seeds(0))
    with torch.no_grad():
        for _, parameter in policy.parameters():
            parameter.add_(0.1)
    adapted = RewardModel.from_policy(policy, seeds=Seeds(0))
    merged = RewardModel.from_policy(policy.merged(), seeds=Seeds(0))
    assert adapted(PROMPTS, TEXTS) == pytest.approx(merged(PROMPTS, TEXTS), abs=1e-5)
    assert adapted(PROMPTS, TEXTS) != pytest.approx(RewardModel.from_policy(tiny(), seeds=Seeds(0))(PROMPTS, TEXTS), abs=1e-3)
    assert all(parameter.requires_grad for _, parameter in adapted.parameters())
