"""How a language model reads a query and writes a response; here the causal form, whose one stack reads both as one text.

Legend: B rows, Q query columns, T response columns, L = Q + T, V vocabulary, D hidden size.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from backflip.policies.chat import render
from backflip.policies.tokens import PositionIds, TokenBatch, positions
from backflip.records import Prompt


class Reading(NamedTuple):
    """Next-token logits (B, T, V) of the positions that chose each response token and, where asked for, the last hidden
    states (B, T, D) they come from; in the model's precision."""

    logits_BTV: Tensor
    hidden_BTD: Tensor | None


class Causal:
    """One stack reads query ⊕ response and predicts the next token at every place.

    `auto_class` is what transformers loads such a model with, `task_type` what PEFT calls it; `one_text` says that a query
    could as well have been written by the model.
    """

    auto_class = "AutoModelForCausalLM"
    task_type = "CAUSAL_LM"
    one_text = True

    def encode(self, tokenizer: Any, prompt: Prompt) -> list[int]:
        """Ids of a prompt."""
        return render(tokenizer, prompt)

    def encode_completion(self, tokenizer: Any, text: str) -> list[int]:
        """Ids of a completion without its end."""
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    def read(self, model: Any, batch: TokenBatch, *, position_ids: PositionIds, hidden: bool) -> Reading:
        """One forward pass over query and response; differentiable."""
        width = batch.response_BT.shape[1]
        attention_BL = batch.attention_BL
        absolute = torch.arange(attention_BL.shape[1], device=attention_BL.device).expand_as(attention_BL)
        output = model(
            input_ids=batch.ids_BL,
            attention_mask=attention_BL,
            position_ids=positions(attention_BL) if position_ids == "mask" else absolute,
            logits_to_keep=width + 1,
            output_hidden_states=hidden,
            use_cache=False,
        )
        return Reading(output.logits[:, -width - 1 : -1], output.hidden_states[-1][:, -width - 1 : -1] if hidden else None)
