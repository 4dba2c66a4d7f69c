"""One forward pass of a transformers model a token, over what it has read before: for drawing tokens and for beams.

Legend: B rows, Q query columns, T tokens the decoder has read, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from backflip.policies.language import LanguagePolicy
from backflip.policies.seq2seq import EncoderDecoder
from backflip.policies.tokens import left_aligned, positions


class CausalDecoder:
    """Goes on with queries, through the model's own key-value cache where it keeps one; reads everything anew where not.

    `logits_BV` are those of the token that comes next in each row, in float32.
    """

    logits_BV: Tensor

    def __init__(self, model: Any, query_BQ: Tensor, query_mask_BQ: Tensor) -> None:
        self.model = model
        self.ids = query_BQ
        self.mask = query_mask_BQ
        self.cache: Any = None
        self._forward(query_BQ, positions(query_mask_BQ))

    def feed(self, token_B: Tensor, alive_B: Tensor) -> None:
        """Append a token to every row; where a row is not alive any more nothing will look at it."""
        self.ids = torch.cat([self.ids, token_B.unsqueeze(1)], dim=1)
        self.mask = torch.cat([self.mask, alive_B.long().unsqueeze(1)], dim=1)
        where = positions(self.mask)
        if self.cache is None:
            self._forward(self.ids, where)
        else:
            self._forward(token_B.unsqueeze(1), where[:, -1:])

    def select(self, row_B: Tensor) -> None:
        """Go on with these rows in this order; a row named twice becomes two."""
        self.ids, self.mask, self.logits_BV = self.ids[row_B], self.mask[row_B], self.logits_BV[row_B]
        self.cache = _select(self.cache, row_B)

    def _forward(self, ids: Tensor, where: Tensor) -> None:
        output = self.model(
            input_ids=ids,
            attention_mask=self.mask,
            position_ids=where,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.cache = getattr(output, "past_key_values", None)
        self.logits_BV = output.logits[:, -1].float()


class Seq2SeqDecoder:
    """The decoder of an encoder–decoder model; what the encoder makes of the queries is computed once.

    `logits_BV` are those of the token that comes next in each row, in float32.
    """

    logits_BV: Tensor

    def __init__(self, model: Any, form: EncoderDecoder, query_BQ: Tensor, query_mask_BQ: Tensor) -> None:
        self.model = model
        query_BQ, self.query_mask = left_aligned(query_BQ, query_mask_BQ)
        encoder = model.get_encoder()
        self.encoded = encoder(input_ids=query_BQ, attention_mask=self.query_mask).last_hidden_state
        self.ids = form.starts(len(query_BQ), query_BQ.device)
        self.cache: Any = None
        self._forward(self.ids)

    def feed(self, token_B: Tensor, alive_B: Tensor) -> None:
        """Append a token to every row; where a row is not alive any more nothing will look at it."""
        self.ids = torch.cat([self.ids, token_B.unsqueeze(1)], dim=1)
        self._forward(self.ids if self.cache is None else token_B.unsqueeze(1))

    def select(self, row_B: Tensor) -> None:
        """Go on with these rows in this order; a row named twice becomes two."""
        self.ids, self.logits_BV = self.ids[row_B], self.logits_BV[row_B]
        self.encoded, self.query_mask = self.encoded[row_B], self.query_mask[row_B]
        self.cache = _select(self.cache, row_B)

    def _forward(self, ids_BT: Tensor) -> None:
        output = self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=self.encoded),
            attention_mask=self.query_mask,
            decoder_input_ids=ids_BT,
            past_key_values=self.cache,
            use_cache=True,
        )
        self.cache = getattr(output, "past_key_values", None)
        self.logits_BV = output.logits[:, -1].float()


Decoder = CausalDecoder | Seq2SeqDecoder


def decoder_of(policy: LanguagePolicy, query_BQ: Tensor, query_mask_BQ: Tensor) -> Decoder:
    """A decoder that has read these queries (B, Q), padded on the left."""
    if isinstance(policy.form, EncoderDecoder):
        return Seq2SeqDecoder(policy.model, policy.form, query_BQ, query_mask_BQ)
    return CausalDecoder(policy.model, query_BQ, query_mask_BQ)


def _select(cache: Any, row_B: Tensor) -> Any:
    """The cache of these rows; None, so that everything is read anew, for one that cannot choose rows."""
    reorder = getattr(cache, "reorder_cache", None)
    if reorder is None:
        return None
    reorder(row_B)
    return cache
