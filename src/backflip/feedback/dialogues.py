"""Conversations as data sets write them, turned into messages: role/content, from/value, and HH-RLHF text."""

from __future__ import annotations

from collections.abc import Sequence

from backflip.errors import DataError
from backflip.feedback.rows import Row
from backflip.records import Message

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
_ROLES = {"human": "user", "gpt": "assistant"}  # ShareGPT names; any other role keeps its name


def messages_of(row: Row, column: str, *, speaker: str = "assistant") -> tuple[Message, ...]:
    """The messages in a column: a list of them, a single one, or plain text, which is one turn of `speaker`.

    Raises DataError when it is none of these or an empty list.
    """
    value = row.values[column]
    if isinstance(value, str):
        return (Message(speaker, value),)
    turns = [value] if isinstance(value, dict) else value
    if not isinstance(turns, list) or not turns:
        raise DataError(f"{row.where}: column {column!r} should be text or a list of messages, not {value!r:.60}")
    return tuple(_message(turn, row, column) for turn in turns)


def _message(turn: object, row: Row, column: str) -> Message:
    for role, content in (("role", "content"), ("from", "value")):
        who, said = (turn.get(role), turn.get(content)) if isinstance(turn, dict) else (None, None)
        if isinstance(who, str) and isinstance(said, str):
            return Message(_ROLES.get(who, who), said)
    raise DataError(
        f"{row.where}: a message in column {column!r} should have text under 'role' and 'content' "
        f"(or 'from' and 'value'), not {turn!r:.60}"
    )


def is_hh(text: object) -> bool:
    """Whether a value is a dialogue in the text form of HH-RLHF."""
    return isinstance(text, str) and HUMAN in text and ASSISTANT in text


def split_hh_pair(chosen: str, rejected: str, where: str) -> tuple[str, str, str]:
    """(prompt, chosen completion, rejected completion) of two HH-RLHF dialogues.

    The prompt is what the two share up to and with the last "\\n\\nAssistant:" they share. The completion is all
    the rest: one reply as a rule, and where the dialogues part before their last turn, every turn from there on,
    because it was the whole rest that people compared. Raises DataError when they share no such marker.
    """
    pairs = enumerate(zip(chosen, rejected, strict=False))
    shared = next((i for i, (a, b) in pairs if a != b), min(len(chosen), len(rejected)))
    cut = chosen[:shared].rfind(ASSISTANT)
    if cut < 0:
        raise DataError(f"{where}: 'chosen' and 'rejected' share no {ASSISTANT!r}, so there is no common prompt")
    cut += len(ASSISTANT)
    return chosen[:cut], chosen[cut:], rejected[cut:]


def split_hh(dialogue: str) -> tuple[str, str]:
    """(prompt, completion) of one HH-RLHF dialogue, cut after its last "\\n\\nAssistant:"."""
    cut = dialogue.rfind(ASSISTANT) + len(ASSISTANT)
    return dialogue[:cut], dialogue[cut:]


def shared_messages(left: Sequence[Message], right: Sequence[Message]) -> int:
    """How many messages two conversations begin with in common, leaving each its last one."""
    most = min(len(left), len(right)) - 1
    return next((i for i in range(most) if left[i] != right[i]), most)


def as_completion(messages: Sequence[Message]) -> str:
    """The text of a reply; further turns after the first follow as "role: content", as in `Prompt.plain`."""
    first, *rest = messages
    return "".join([first.content, *(f"\n\n{m.role}: {m.content}" for m in rest)])
