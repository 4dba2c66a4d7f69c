"""Encoder–decoder models (T5, BART and their like): π(y_t | y_<t, enc(x)).

The encoder reads the query. The decoder reads the response so far, which for it begins with a start token of its own, and
looks at the query through cross-attention. Everything else a policy does is the same as for a causal model.

Legend: B rows, Q query columns, T response columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from backflip.errors import ModelError
from backflip.policies.chat import render
from backflip.policies.forms import Causal, Reading
from backflip.policies.tokens import PositionIds, TokenBatch, left_aligned
from backflip.records import Prompt


@dataclass(frozen=True)
class EncoderDecoder:
    """Two stacks: one reads the query, the other writes the response after the token `start_id`.

    The class attributes are those of `Causal`.
    """

    start_id: int
    auto_class = "AutoModelForSeq2SeqLM"
    task_type = "SEQ_2_SEQ_LM"
    one_text = False

    def encode(self, tokenizer: Any, prompt: Prompt) -> list[int]:
        """Ids of a prompt. A tokenizer that closes texts with its end-of-text token closes a conversation so too."""
        ids, eos = render(tokenizer, prompt), tokenizer.eos_token_id
        closes = list(tokenizer("")["input_ids"])[-1:] == [eos]
        return [*ids, eos] if closes and ids[-1:] != [eos] else ids

    def encode_completion(self, tokenizer: Any, text: str) -> list[int]:
        """Ids of a completion without its end, after whatever the family's targets begin with (BART: a token of its own)."""
        ids = list(tokenizer(text_target=text)["input_ids"])
        return ids[:-1] if ids[-1:] == [tokenizer.eos_token_id] else ids

    def read(self, model: Any, batch: TokenBatch, *, position_ids: PositionIds, hidden: bool) -> Reading:
        """Teacher forcing: the decoder reads the start token and the response but its last token; differentiable.

        Absolute positions are counted from the padded query's first column, which only changes a model that learned them.
        """
        query_BQ, mask_BQ = batch.query_BQ, batch.query_mask_BQ
        if position_ids == "mask":
            query_BQ, mask_BQ = left_aligned(query_BQ, mask_BQ)
        output = model(
            input_ids=query_BQ,
            attention_mask=mask_BQ,
            decoder_input_ids=torch.cat([self.starts(len(batch), query_BQ.device), batch.response_BT], dim=1)[:, :-1],
            output_hidden_states=hidden,
            use_cache=False,
        )
        return Reading(output.logits, output.decoder_hidden_states[-1] if hidden else None)

    def starts(self, rows: int, device: torch.device) -> Tensor:
        """What the decoder reads before anything is written, (B, 1)."""
        return torch.full((rows, 1), self.start_id, dtype=torch.long, device=device)


Form = Causal | EncoderDecoder


def form_of(model: Any, name: str) -> Form:
    """The form of a model, told by its config. Raises ModelError for a decoder that has no start token."""
    config = getattr(model, "config", None)
    if not getattr(config, "is_encoder_decoder", False):
        return Causal()
    start = getattr(config, "decoder_start_token_id", None)
    if start is None:
        raise ModelError(f"the decoder of {name!r} has no token to start from; set `decoder_start_token_id` in its config.json")
    return EncoderDecoder(int(start))
