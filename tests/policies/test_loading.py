"""Policies as folders: what plain transformers makes of them, LoRA, and what cannot be loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.tiny_models import QUERIES, tiny, tiny_of, weights

from backflip.errors import ModelError
from backflip.policies.hub import load_tokenizer
from backflip.policies.language import LanguagePolicy
from backflip.policies.loading import load_policy, with_lora
from backflip.policies.tokens import token_batch
from backflip.seeds import Seeds

torch.set_num_threads(1)

BATCH = token_batch(QUERIES, [[10, 11], [12], [13, 14, 15], [16]], fill=0)


def logps(policy: LanguagePolicy) -> torch.Tensor:
    return policy.score(BATCH).logps_BT.detach()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny().save(tmp_path / "policy")
    return tmp_path / "policy"


def test_a_tiny_policy_is_an_ordinary_folder(folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    names = {p.name for p in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not {n for n in names if n.endswith((".bin", ".pt", ".pkl"))}
    model, words = AutoModelForCausalLM.from_pretrained(str(folder)), AutoTokenizer.from_pretrained(str(folder))
    policy = tiny()
    ids = words("the film was good.")["input_ids"]
    assert ids == policy.encode_completion("the film was good.", eos=False)
    ours, theirs = (m(torch.tensor([ids])).logits for m in (policy.model, model))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert (words.eos_token_id, words.pad_token_id) == (policy.eos_id, policy.fill_id)
    assert model.config.eos_token_id == policy.eos_id


def test_what_is_saved_is_what_is_loaded(folder: Path) -> None:
    policy = load_policy(folder, device="cpu")
    assert torch.equal(logps(policy), logps(tiny()))
    assert policy.name == "policy"
    assert load_policy(folder, name="mine", device="cpu").name == "mine"
    assert next(policy.model.parameters()).dtype == torch.float32


@pytest.mark.parametrize("kind", ["gpt2", "qwen2"])
def test_restoring_takes_the_weights_up_again(kind: str, tmp_path: Path) -> None:
    policy = tiny_of(kind)
    before = weights(policy.model)
    policy.save(tmp_path)
    with torch.no_grad():
        for _, parameter in policy.parameters():
            parameter.mul_(2.0)
    policy.restore(tmp_path)
    assert all(torch.equal(weights(policy.model)[name], x) for name, x in before.items())


def test_tiny_policies_are_made_by_their_seed() -> None:
    assert torch.equal(logps(tiny(1)), logps(tiny(1)))
    assert not torch.equal(logps(tiny(1)), logps(tiny(2)))
    torch.manual_seed(99)  # no global generator has a say
    assert torch.equal(logps(tiny(1)), logps(tiny(1)))


# LoRA


def test_a_fresh_adapter_changes_nothing_and_is_drawn_from_the_seed(folder: Path) -> None:
    base = logps(load_policy(folder, device="cpu"))
    made = [load_policy(folder, lora=2, seed=seed, device="cpu") for seed in (0, 0, 1)]
    for policy in made:
        assert policy.is_adapted
        torch.testing.assert_close(logps(policy), base, rtol=0, atol=1e-6)
        names = [name for name, _ in policy.parameters()]
        assert names
        assert all("lora_" in name for name in names)
    drawn = [torch.cat([p.flatten() for n, p in policy.parameters() if "lora_A" in n]) for policy in made]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert drawn[0].abs().max() <= 32**-0.5


def nudge(policy: LanguagePolicy) -> None:
    """Move the adapter away from where it changes nothing."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, parameter in policy.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)


def test_an_adapter_is_saved_restored_merged_and_loaded(folder: Path, tmp_path: Path) -> None:
    policy = load_policy(folder, lora=2, device="cpu")
    reference = policy.frozen_copy()
    nudge(policy)
    moved = logps(policy)
    assert (moved - logps(reference)).abs().max() > 1e-2
    policy.save(tmp_path / "adapter")
    other = load_policy(folder, lora=2, seed=5, device="cpu")
    other.restore(tmp_path / "adapter")
    assert torch.equal(logps(other), moved)
    loaded = load_policy(tmp_path / "adapter", device="cpu")
    assert torch.equal(logps(loaded), moved)
    assert {n for n, _ in loaded.parameters()} == {n for n, _ in policy.parameters()}
    whole = policy.merged()
    assert not whole.is_adapted
    torch.testing.assert_close(logps(whole), moved, rtol=0, atol=1e-4)
    assert policy.is_adapted
    torch.testing.assert_close(logps(policy), moved)
    whole.save(tmp_path / "merged")
    torch.testing.assert_close(logps(load_policy(tmp_path / "merged", device="cpu")), moved, rtol=0, atol=1e-4)
    plain = tiny()
    assert plain.merged() is plain


def test_an_adapter_needs_no_head_of_its_own_rank() -> None:
    for rank in (1, 4):
        policy = with_lora(tiny_of("gpt2"), rank=rank, seeds=Seeds(0))
        assert {min(p.shape) for n, p in policy.parameters() if "lora_" in n} == {rank}


# What cannot be loaded


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ModelError, match=r"is not a model folder: it has no config.json \(it holds notes.txt\)"):
        load_policy(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="it holds nothing"):
        load_policy(tmp_path / "empty")


def test_paths_that_are_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", "./missing", "a/b/c", ""):
        with pytest.raises(ModelError, match=r"there is no model folder|is not a model folder"):
            load_policy(path)
    file = tmp_path / "model.safetensors"
    file.write_text("x")
    with pytest.raises(ModelError, match=r"is a file; give the folder that holds the model's config.json"):
        load_policy(file)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", "{"),
        ("config.json", json.dumps({"model_type": "no such model"})),
        ("model.safetensors", "torn"),
        ("tokenizer.json", "{"),
    ],
)
def test_damaged_folders(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_policy(folder)


def test_a_folder_without_a_tokenizer(folder: Path) -> None:
    for path in folder.iterdir():
        if "token" in path.name or "special" in path.name:
            path.unlink()
    with pytest.raises(ModelError, match=r"the tokenizer of .* cannot be loaded"):
        load_tokenizer(folder)


def test_a_damaged_adapter(folder: Path, tmp_path: Path) -> None:
    load_policy(folder, lora=2, device="cpu").save(tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_model.safetensors").write_text("torn")
    with pytest.raises(ModelError, match=r"the adapter .* cannot be loaded"):
        load_policy(tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"adapter_config\.json cannot be read"):
        load_policy(tmp_path / "adapter")


def test_no_code_that_comes_with_weights_is_run(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}
    config["model_type"] = "evil"
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_policy(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_reference_of_a_fresh_adapter_is_the_model_below_it_and_no_copy(kind: str) -> None:
    policy = with_lora(tiny_of(kind), rank=2, seeds=Seeds(0))
    batch = token_batch([[5, 6], [7]], [[8, 9], [10]], fill=0)
    reference, copied = policy.reference(), policy.frozen_copy()
    assert reference.model is policy.model
    before = copied.score(batch).logps_BT
    with torch.no_grad():
        for name, parameter in policy.parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(reference.score(batch).logps_BT, before, rtol=0, atol=1e-6)
    assert (policy.score(batch).logps_BT - before).abs().max() > 1e-3, "and the policy has its adapter back"
    policy.score(batch).logps_BT.sum().backward()
    assert all(p.grad is not None for _, p in policy.parameters())
    # An adapter that has learned something is part of what the reference is.
    trained = policy.reference()
    assert trained.model is not policy.model
    torch.testing.assert_close(trained.score(batch).logps_BT, policy.score(batch).logps_BT, rtol=0, atol=1e-6)
    assert tiny_of(kind).reference().score(batch).logps_BT.requires_grad is False
