"""From a rollout to episodes that can be trained on: where each text ends, what it scored, what the old policy thought.

Legend: B rows, T response columns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from backflip.errors import DataError
from backflip.policies.language import LanguagePolicy
from backflip.policies.tokens import TokenBatch
from backflip.records import Prompt
from backflip.settings import Online


@dataclass(frozen=True)
class Episodes:
    """B episodes of one step, everything the updates need.

    `loss_mask_BT` marks the tokens that are trained on. Log-probabilities are those of the sampler, of the policy before the
    step's first update, and of the reference; `allowed_BTS`, where not every token could be drawn, says which could, eight to a
    byte. `advantages_BT` are those of a method without a critic; with one, they come
    from `old_values_BT` in each minibatch.
    """

    tokens: TokenBatch
    loss_mask_BT: Tensor
    sampled_logps_BT: Tensor
    old_logps_BT: Tensor
    ref_logps_BT: Tensor
    old_values_BT: Tensor
    rewards_BT: Tensor
    advantages_BT: Tensor
    allowed_BTS: Tensor | None = None

    def rows(self, index: Tensor) -> Episodes:
        """The episodes named by `index`."""
        chosen: dict[str, Any] = {}
        for name in (f.name for f in dataclasses.fields(self) if f.name != "tokens"):
            tensor = getattr(self, name)
            chosen[name] = None if tensor is None else tensor[index]
        return Episodes(tokens=self.tokens.rows(index), **chosen)


class Ends(NamedTuple):
    """Tokens kept of each response (the ending token included), and whether that token was found: both (B,)."""

    kept_B: Tensor
    found_B: Tensor


class ReadyPrompt(NamedTuple):
    """A prompt and its ids, cut to length."""

    prompt: Prompt
    ids: list[int]


def prepare_prompts(policy: LanguagePolicy, prompts: Sequence[Prompt], settings: Online) -> list[ReadyPrompt]:
    """Encode every prompt and deal with the long ones as `settings.overlong` says.

    Raises DataError for a prompt that is too long when refusing, or when no prompt is left.
    """
    room = policy.context - settings.sampling.max_new_tokens
    limit = room if settings.query_length is None else min(room, settings.query_length)
    if limit < 1:
        raise DataError(
            f"max_new_tokens {settings.sampling.max_new_tokens} leaves no room for a prompt "
            f"in the model's context of {policy.context}"
        )
    ready = []
    for i, given in enumerate(prompts):
        prompt = between_full_stops(given) if settings.sentence_prompts else given
        ids = policy.encode(prompt)
        if len(ids) > limit:
            if settings.overlong == "refuse":
                raise DataError(
                    f"prompt {i + 1} has {len(ids)} tokens and at most {limit} fit; shorten it, "
                    "or set overlong to truncate or drop: "
                    f"{prompt.plain[:60]!r}"
                )
            if settings.overlong == "drop":
                continue
            ids = ids[-limit:]
        ready.append(ReadyPrompt(prompt, ids))
    if not ready:
        raise DataError("there are no prompts to learn on" + (": every one was too long and dropped" if prompts else ""))
    return ready


def between_full_stops(prompt: Prompt) -> Prompt:
    """The prompt from after its first full stop to its last one ("N Implementation Details", detail 12).

    A text with fewer than two full stops, and a conversation, stay as they are.

    >>> between_full_stops(Prompt("the end. A whole one. And a")).text
    ' A whole one.'
    """
    if not isinstance(prompt.text, str) or prompt.text.count(".") < 2:
        return prompt
    start, end = prompt.text.index(".") + 1, prompt.text.rindex(".") + 1
    return Prompt(prompt.text[start:end], prompt.columns)


def stop_tokens(policy: LanguagePolicy, truncate_at: str) -> Tensor:
    """Ids of the tokens that end a text: the end-of-text token, or all that read as `truncate_at`.

    Raises DataError when the vocabulary has no such token.
    """
    if truncate_at == "eos":
        return torch.tensor([policy.eos_id])
    readings = enumerate(policy.decode([i]) for i in range(len(policy.tokenizer)))
    found = [i for i, reading in readings if truncate_at in (reading, reading.strip())]
    if not found:
        raise DataError(f"no token of the policy reads {truncate_at!r}; choose another truncate_at, or 'eos'")
    return torch.tensor(found)


def find_ends(tokens: TokenBatch, stops: Tensor, *, after: int = 0) -> Ends:
    """Where each response ends: at the first of `stops` among its tokens from index `after` on.

    Without one the whole response is kept.
    """
    columns_T = torch.arange(tokens.response_BT.shape[1], device=stops.device)
    is_end_BT = torch.isin(tokens.response_BT, stops) & tokens.mask_BT.bool() & (columns_T >= after)
    found_B = is_end_BT.any(dim=1)
    first_B = is_end_BT.int().argmax(dim=1)
    return Ends(torch.where(found_B, first_B + 1, tokens.mask_BT.sum(dim=1)), found_B)


def texts(policy: LanguagePolicy, tokens: TokenBatch, kept_B: Tensor) -> list[str]:
    """The kept part of each response as text."""
    return [policy.decode(row[:n]) for row, n in zip(tokens.response_BT.tolist(), kept_B.tolist(), strict=True)]


def loss_mask(tokens: TokenBatch, kept_B: Tensor, *, past_the_end: Literal["train", "mask"]) -> Tensor:
    """Tokens that enter the loss: all that were sampled, or only those kept."""
    if past_the_end == "train":
        return tokens.mask_BT
    columns_T = torch.arange(tokens.mask_BT.shape[1], device=kept_B.device)
    return tokens.mask_BT * (columns_T < kept_B.unsqueeze(1))
