"""How a reward model's network reads a text: a decoder on its last token, an encoder as a whole.

Legend: B rows, L tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from backflip.errors import ModelError
from backflip.policies.chat import render
from backflip.policies.hub import is_encoder
from backflip.policies.language import at_least_float32
from backflip.policies.recompute import wake
from backflip.policies.tokens import pad
from backflip.policies.transfer import send
from backflip.records import Prompt

ScoreAt = Literal["eos", "last"]


@dataclass(frozen=True)
class LastToken:
    """A decoder: prompt ⊕ completion (⊕ end-of-text) is one text, and a linear head `score` reads its last token."""

    def encode(self, tokenizer: Any, prompt: Prompt, completion: str, score_at: ScoreAt, max_length: int) -> list[int]:
        """Ids, cut to `max_length` from the left."""
        ids = render(tokenizer, prompt) + list(tokenizer(completion, add_special_tokens=False)["input_ids"])
        if score_at == "eos":
            ids = [*ids, int(tokenizer.eos_token_id)]
        return ids[-max_length:] or [int(tokenizer.eos_token_id)]

    def head(self, model: Any) -> Any:
        """The linear layer whose output is the score."""
        return model.score


@dataclass(frozen=True)
class WholeText:
    """An encoder such as BERT: prompt and completion are two segments, and the classifier's own pooling and head read them."""

    def encode(self, tokenizer: Any, prompt: Prompt, completion: str, score_at: ScoreAt, max_length: int) -> list[int]:
        """Ids with the special tokens the encoder wants; a pair that is too long loses the start of the prompt, then the end of
        the completion. Where the score is read is the encoder's business."""
        first = list(tokenizer(prompt.plain, add_special_tokens=False)["input_ids"])
        second = list(tokenizer(completion, add_special_tokens=False)["input_ids"])
        room = max_length - tokenizer.num_special_tokens_to_add(pair=True)
        second = second[: max(room, 0)]
        first = first[len(first) - max(0, min(len(first), room - len(second))) :]
        begin, between, end = _frame(tokenizer)
        return [*begin, *first, *between, *second, *end]

    def head(self, model: Any) -> nn.Linear:
        """The last linear layer of one output. Raises ModelError where there is none."""
        found = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == 1]
        if not found:
            raise ModelError(f"{type(model).__name__} has no linear head with one output, so it is no reward model")
        return found[-1]

    def scores(self, model: Any, tokenizer: Any, rows: Sequence[Sequence[int]], device: torch.device) -> Tensor:
        """The classifier's output, (B,), differentiable."""
        wake(model)
        ids_BL, mask_BL = (send(t, device) for t in pad(rows, fill=int(tokenizer.pad_token_id or 0), left=False))
        inputs = {"input_ids": ids_BL, "attention_mask": mask_BL}
        if getattr(model.config, "type_vocab_size", 0) > 1 and "token_type_ids" in tokenizer.model_input_names:
            after_BL = (ids_BL == tokenizer.sep_token_id).long().cumsum(1) - (ids_BL == tokenizer.sep_token_id).long()
            inputs["token_type_ids"] = (after_BL > 0).long() * mask_BL
        return at_least_float32(model(**inputs).logits[:, 0])


Reading = LastToken | WholeText


def reading_of(model: Any, name: str | Path) -> Reading:
    """How a classifier reads, told by its parts. Raises ModelError for one that is neither decoder nor encoder."""
    if hasattr(model, "score"):
        return LastToken()
    if is_encoder(model.config):
        return WholeText()
    raise ModelError(
        f"{name} is a {type(model).__name__}, which has no reward head that backflip knows; use a decoder or an encoder"
    )


def _frame(tokenizer: Any) -> tuple[list[int], list[int], list[int]]:
    """The special tokens before, between and after the two texts of a pair, as the tokenizer itself puts them."""
    whole = tokenizer("a", "a")
    ids, special = list(whole["input_ids"]), tokenizer("a", "a", return_special_tokens_mask=True)["special_tokens_mask"]
    texts = [i for i, mark in enumerate(special) if not mark]
    half = len(texts) // 2
    if not texts:
        raise ModelError("the tokenizer of this encoder does not know the letter a; it cannot read texts")
    return ids[: texts[0]], ids[texts[half - 1] + 1 : texts[half]], ids[texts[-1] + 1 :]
