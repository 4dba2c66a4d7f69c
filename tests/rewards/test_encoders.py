"""Encoders as reward models: the same scores as transformers, their life on disk, and that they learn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.tiny_encoders import save_encoder
from tests.tiny_models import tiny, tiny_of
from tests.tiny_seq2seq import tiny_seq2seq

from backflip.errors import ModelError
from backflip.policies.hub import kind_of_model
from backflip.policies.tokens import token_batch
from backflip.records import Comparison, Prompt
from backflip.rewards.learned import RewardModel
from backflip.runs import Run
from backflip.seeds import Seeds
from backflip.settings import Optim, Reward
from backflip.train.reward import fit_reward

torch.set_num_threads(1)

SAID = ["the film", "a cat sat on the mat", "no", ""]
TEXTS = [" was good.", " and saw a dog.", "z", "the plot"]
KINDS = ["bert", "roberta", "deberta"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_hub_reward_model_gives_the_scores_that_transformers_does(kind: str, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = save_encoder(tmp_path / "m", kind, classifier=True)
    ours = RewardModel.load(folder, device="cpu")
    plain, words = AutoModelForSequenceClassification.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    inputs = words(SAID, TEXTS, return_tensors="pt", padding=True)
    if kind != "bert":
        inputs.pop("token_type_ids", None)
    with torch.no_grad():
        theirs = plain(**inputs).logits[:, 0].tolist()
    assert ours(SAID, TEXTS) == pytest.approx(theirs, abs=1e-5)
    assert [ours([p], [t])[0] for p, t in zip(SAID, TEXTS, strict=True)] == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_saved_as_it_was_found_up_to_scale_and_bias(kind: str, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    ours = RewardModel.load(save_encoder(tmp_path / "m", kind, classifier=True), device="cpu")
    ours.normalize(ours(SAID, TEXTS), mean=0.5, std=2.0)
    before = ours(SAID, TEXTS)
    ours.fold()
    ours.save(tmp_path / "again")
    assert RewardModel.load(tmp_path / "again", device="cpu")(SAID, TEXTS) == pytest.approx(before, abs=1e-5)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "again").eval()
    row = ours.encode(Prompt(SAID[0]), TEXTS[0])
    ids = torch.tensor([row])
    types = {}
    if kind == "bert":
        end = row.index(ours.tokenizer.sep_token_id)
        types["token_type_ids"] = torch.tensor([[int(i > end) for i in range(len(row))]])
    with torch.no_grad():
        assert plain(input_ids=ids, **types).logits.item() + ours.bias == pytest.approx(before[0], abs=1e-5)


def test_a_pair_that_is_too_long_loses_the_start_of_the_prompt(tmp_path: Path) -> None:
    model = RewardModel.load(save_encoder(tmp_path / "m", classifier=True), device="cpu")
    model.max_length = 12
    words = model.tokenizer
    assert words.decode(model.encode(Prompt("abcdefgh"), "xyz")).replace(" ", "") == "[CLS]cdefgh[SEP]xyz[SEP]"
    assert words.decode(model.encode(Prompt("abc"), "xyz" * 9)).replace(" ", "") == "[CLS][SEP]xyzxyzxyz[SEP]"
    assert words.decode(model.encode(Prompt("ab"), "x")).replace(" ", "") == "[CLS]ab[SEP]x[SEP]"


@pytest.mark.parametrize("kind", KINDS)
def test_an_encoder_gets_a_head_from_the_seed_alone_and_learns(kind: str, tmp_path: Path) -> None:
    folder = save_encoder(tmp_path / "m", kind)
    assert kind_of_model(folder) == "an encoder"
    torch.manual_seed(1)
    one = RewardModel.from_encoder(folder, seeds=Seeds(3), device="cpu")
    torch.manual_seed(2)
    two = RewardModel.from_encoder(folder, seeds=Seeds(3), device="cpu")
    assert one(SAID, TEXTS) == two(SAID, TEXTS) != RewardModel.from_encoder(folder, seeds=Seeds(4), device="cpu")(SAID, TEXTS)
    assert one.max_length == 62
    told = [Comparison(Prompt(f"film {i}"), "zz" + "a" * (i % 3), "e" * (1 + i % 4), p_left=1.0) for i in range(48)]
    settings = Reward(batch_size=8, epochs=4.0, holdout=0.25, optim=Optim(learning_rate=3e-3), normalization_samples=20)
    with Run.open(tmp_path / "run", kind="reward", settings=settings, quiet=True) as run:
        report = fit_reward(one, told, settings, run, seeds=Seeds(0))
    assert report.accuracy > 0.9


def test_an_encoder_has_no_score_at_each_token(tmp_path: Path) -> None:
    model = RewardModel.load(save_encoder(tmp_path / "m", classifier=True), device="cpu")
    with pytest.raises(ModelError, match="reads a text as a whole and has no score at each token"):
        model.values(token_batch([[5, 6]], [(7, 8)], fill=0))


def test_what_kind_a_folder_is_is_told_by_its_config(tmp_path: Path) -> None:
    tiny().save(tmp_path / "policy")
    RewardModel.from_policy(tiny_of("gpt2"), seeds=Seeds(0)).save(tmp_path / "reward")
    tiny_seq2seq("bart").save(tmp_path / "bart")
    save_encoder(tmp_path / "classifier", classifier=True)
    found = [kind_of_model(tmp_path / name) for name in ("policy", "reward", "bart", "classifier")]
    assert found == ["a language model", "a reward model", "a language model", "a reward model"]
    with pytest.raises(ModelError, match="there is no model folder"):
        kind_of_model(tmp_path / "nowhere")


def test_a_classifier_of_another_form_is_refused(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    policy = tiny_seq2seq("bart")
    policy.model.config.num_labels = 1
    AutoModelForSequenceClassification.from_config(policy.model.config).save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="has no reward head that backflip knows"):
        RewardModel.load(tmp_path, device="cpu")
