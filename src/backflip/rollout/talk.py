"""Talking with a policy: a conversation in, the next turn out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import NamedTuple

from backflip.errors import DataError
from backflip.policies.chat import PLAIN
from backflip.policies.language import LanguagePolicy
from backflip.records import Message, Prompt
from backflip.rollout.local import generate_samples
from backflip.seeds import Seeds
from backflip.settings import Sampling

ROLES = ("system", "user", "assistant")
NEXT_TURN = "\n\nHuman:"  # where a policy of the plain layout would go on with our side of the conversation


class Reply(NamedTuple):
    """What a policy said, in how many seconds, and how many of the first messages no longer fitted into its context."""

    text: str
    seconds: float
    forgotten: int


class Talker:
    """A policy that answers conversations. The nth answer is drawn from the nth generator of `seeds`."""

    def __init__(self, policy: LanguagePolicy, settings: Sampling, *, seeds: Seeds) -> None:
        # Asked now: a tokenizer without a template is given one as soon as it renders a conversation.
        self.template: str | None = policy.tokenizer.chat_template
        self._policy, self._settings, self._seeds = policy, settings, seeds
        self._turns = 0

    def reply(self, messages: Sequence[Message], *, max_new_tokens: int | None = None, temperature: float | None = None) -> Reply:
        """The next turn. A policy without a chat template is given the texts one after the other and goes on writing.

        Where a conversation is longer than the context, its first messages are left out (a system message stays), and after
        that the answer is cut shorter. A temperature of 0 takes the likeliest token. Raises DataError for no messages, an
        unknown role and a last message that fills the whole context.
        """
        if not messages:
            raise DataError("there is nothing to answer; give at least one message")
        for message in messages:
            if message.role not in ROLES:
                raise DataError(f"there is no role {message.role!r}; use {', '.join(ROLES)}")
        settings, began = self._settings, time.perf_counter()
        if temperature is not None:
            settings = dataclasses.replace(settings, temperature=temperature or 1.0, top_k=settings.top_k if temperature else 1)
        if self.template == PLAIN:
            settings = dataclasses.replace(settings, stop=(*settings.stop, NEXT_TURN))
        prompt, room, forgotten = self._fit(list(messages), max_new_tokens or settings.max_new_tokens)
        settings = dataclasses.replace(settings, max_new_tokens=room)
        seeds, self._turns = self._seeds.child("talk", self._turns), self._turns + 1
        [[sample]] = generate_samples(self._policy, [prompt], n=1, seeds=seeds, settings=settings)
        text = sample.text.strip() if self.template else sample.text
        return Reply(text, time.perf_counter() - began, forgotten)

    def _prompt(self, messages: Sequence[Message]) -> Prompt:
        return Prompt(tuple(messages)) if self.template else Prompt("".join(message.content for message in messages))

    def _fit(self, messages: list[Message], wanted: int) -> tuple[Prompt, int, int]:
        """The prompt, how many tokens may follow it, and how many messages were left out."""
        context, forgotten = self._policy.context, 0
        kept = [messages.pop(0)] if len(messages) > 1 and messages[0].role == "system" else []
        while True:
            prompt = self._prompt([*kept, *messages])
            room = context - len(self._policy.encode(prompt))
            if room >= min(wanted, context // 2) or len(messages) == 1:
                break
            messages.pop(0)
            forgotten += 1
        if room < 1:
            raise DataError(f"the last message fills the policy's whole context of {context} tokens; shorten it")
        return prompt, min(wanted, room), forgotten
