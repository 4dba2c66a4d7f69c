"""What transformers loads from folders and by name: models and tokenizers, with errors of one sentence."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from backflip.errors import ModelError


def pick_device(device: str = "auto") -> torch.device:
    """The device named, or with "auto" the GPU where there is one."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)


def load_tokenizer(path: str | Path) -> Any:
    """The tokenizer of a model folder or name. Raises ModelError."""
    from transformers import AutoTokenizer

    check_folder(path)
    try:
        return AutoTokenizer.from_pretrained(str(path), trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise ModelError(f"the tokenizer of {path} cannot be loaded: {first_line(problem)}") from problem


KINDS = {
    "AutoModelForCausalLM": "a language model",
    "AutoModelForSeq2SeqLM": "a language model",
    "AutoModelForSequenceClassification": "a reward model",
}
CLASSIFIER_HEADS = {"score.weight", "classification_head.out_proj.weight"}


def language_model(path: str | Path) -> Any:
    """The language model of a folder or name, causal or encoder–decoder as its config says. Raises ModelError."""
    from transformers import AutoConfig

    check_folder(path)
    try:
        with quiet():
            config = AutoConfig.from_pretrained(str(path), trust_remote_code=False)
    except Exception as problem:  # as below
        raise ModelError(f"the model {path} cannot be loaded: {first_line(problem)}") from problem
    both = getattr(config, "is_encoder_decoder", False)
    return from_pretrained("AutoModelForSeq2SeqLM" if both else "AutoModelForCausalLM", path)


def kind_of_model(path: str | Path) -> str:
    """ "a language model", "an encoder" or "a reward model", by what the config of a folder or name says. Raises ModelError."""
    from transformers import AutoConfig

    check_folder(path)
    if (Path(path) / "adapter_config.json").is_file():
        return "a language model"
    try:
        with quiet():
            config = AutoConfig.from_pretrained(str(path), trust_remote_code=False)
    except Exception as problem:  # as below
        raise ModelError(f"the model {path} cannot be loaded: {first_line(problem)}") from problem
    if any(name.endswith("ForSequenceClassification") for name in config.architectures or ()):
        return "a reward model"
    return "an encoder" if is_encoder(config) else "a language model"


def is_encoder(config: Any) -> bool:
    """Whether a model of this config reads a text in both directions: it fills in masked words and writes none."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    both = getattr(config, "is_encoder_decoder", False) or getattr(config, "is_decoder", False)
    return config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not both


def from_pretrained(auto_class: str, path: str | Path, *, new_head: bool = False, **options: Any) -> Any:
    """A model of one of transformers' Auto classes, in float32, never running code that came with the weights.

    Raises ModelError when weights are missing, unless a `new_head` is wanted, which transformers then draws.
    """
    import transformers

    check_folder(path)
    try:
        with quiet():
            model, loaded = getattr(transformers, auto_class).from_pretrained(
                str(path), dtype=torch.float32, trust_remote_code=False, output_loading_info=True, **options
            )
    except Exception as problem:  # transformers, safetensors and json each raise their own kinds on a broken folder
        raise ModelError(f"the model {path} cannot be loaded: {first_line(problem)}") from problem
    what = KINDS[auto_class]
    if loaded["missing_keys"] and not new_head:
        raise ModelError(f"{path} is not {what}: it has no weights for {sorted(loaded['missing_keys'])[0]}")
    if what == "a language model" and CLASSIFIER_HEADS & set(loaded["unexpected_keys"]):
        raise ModelError(f"{path} is a reward model; give a language model")
    return model


def check_vocabulary(model: Any, tokenizer: Any, path: str | Path) -> None:
    """Raise ModelError when the tokenizer has ids that the model has no embedding for.

    Tokens added on top of the vocabulary do not count, but for the end-of-text token: some tokenizer classes add a few
    that the model never saw, and no text has them but by naming them.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    added = tokenizer.added_tokens_decoder.keys() - {tokenizer.eos_token_id}
    largest = max((i for i in tokenizer.get_vocab().values() if i not in added), default=0)
    if largest >= rows:
        raise ModelError(
            f"the tokenizer of {path} does not belong to its model: it has token ids up to {largest} and the model has "
            f"{rows} embeddings; save the tokenizer that the model was trained with beside it"
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers and PEFT from drawing progress bars and remarks about weights into our own display."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # PEFT uses names that transformers is about to drop
            warnings.filterwarnings("ignore", "fan_in_fan_out is set to False")  # and finds out by itself, for GPT-2
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def check_folder(path: str | Path) -> None:
    """Raise ModelError unless `path` is a model folder or could be the name of one elsewhere."""
    folder = Path(path)
    if folder.is_dir():
        if not (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file():
            inside = ", ".join(sorted(p.name for p in folder.iterdir())[:5]) or "nothing"
            if (folder / "model" / "config.json").is_file():
                raise ModelError(f"{folder} is not a model folder; is {folder}/model meant?")
            raise ModelError(f"{folder} is not a model folder: it has no config.json (it holds {inside})")
    elif folder.exists():
        raise ModelError(f"{folder} is a file; give the folder that holds the model's config.json")
    elif folder.is_absolute() or str(path).startswith((".", "~")) or str(path).count("/") > 1 or not str(path):
        raise ModelError(f"there is no model folder {folder}; check the path")


def first_line(problem: BaseException) -> str:
    """The first line of an error's message that says anything; its kind when none does."""
    lines = [line for line in str(problem).splitlines() if line.strip()]
    return lines[0].strip() if lines else type(problem).__name__
