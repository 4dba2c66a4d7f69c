"""Load a policy by folder or name; say in one sentence what is wrong when it cannot be done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from backflip.errors import ModelError
from backflip.policies.hub import check_vocabulary, first_line, language_model, load_tokenizer, pick_device, quiet
from backflip.policies.language import LanguagePolicy
from backflip.seeds import Seeds


def load_policy(
    path: str | Path, *, lora: int | None = None, name: str | None = None, seed: int = 0, device: str = "auto"
) -> LanguagePolicy:
    """Any causal or encoder–decoder language model that transformers loads, from a folder or by name, in float32.

    `lora` adds a fresh LoRA adapter of that rank (drawn from `seed`) to every linear layer and freezes the rest. A folder
    that holds a PEFT adapter is loaded with its base model and stays trainable. Raises ModelError.
    """
    folder = Path(path)
    if (folder / "adapter_config.json").is_file():
        model = _load_adapter(folder)
    else:
        model = language_model(path)
    policy = LanguagePolicy(model, load_tokenizer(path), name=name or _name(folder))
    check_vocabulary(model, policy.tokenizer, path)
    if lora is not None:
        policy = with_lora(policy, rank=lora, seeds=Seeds(seed))
    policy.model.to(pick_device(device))
    return policy


def with_lora(policy: LanguagePolicy, *, rank: int, seeds: Seeds) -> LanguagePolicy:
    """The policy with a fresh LoRA adapter (Hu et al. 2021; α = 2·rank) on every linear layer, all else frozen.

    B starts at zero, so the adapted policy equals the policy; A is U(−1/√d, 1/√d), drawn from the generator "lora".
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type=policy.form.task_type)
    with quiet():
        model = get_peft_model(policy.model, config)
    adapted = LanguagePolicy(model, policy.tokenizer, name=policy.name)
    generator = seeds.torch("lora")
    with torch.no_grad():
        for name, parameter in adapted.parameters():
            if "lora_A" in name:
                bound = parameter.shape[1] ** -0.5
                # Drawn on the CPU, so that an adapter begins the same on every device.
                parameter.copy_(torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator))
    return adapted


def _name(folder: Path) -> str:
    """What a policy is called after its folder: RUN/model is called RUN."""
    return (folder.parent.name if folder.name == "model" else "") or folder.name


def _load_adapter(folder: Path) -> Any:
    from peft import PeftModel

    try:
        base = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    except (OSError, ValueError, KeyError) as problem:
        raise ModelError(f"{folder}/adapter_config.json cannot be read: {first_line(problem)}") from problem
    model = language_model(base)
    try:
        with quiet():
            return PeftModel.from_pretrained(model, str(folder), is_trainable=True)
    except Exception as problem:  # as above
        raise ModelError(f"the adapter {folder} cannot be loaded: {first_line(problem)}") from problem
