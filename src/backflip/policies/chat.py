"""Chat templates: how a list of messages becomes the text a model reads.

A tokenizer's own template always wins. One without any gets PLAIN, the "Human / Assistant" layout of the HH dialogues,
and carries it along when it is saved, so a policy reads the same conversation the same way for ever.
"""

from __future__ import annotations

from typing import Any

from backflip.records import Message, Prompt

# The line breaks stand in strings: a template engine drops a line break that follows a block.
PLAIN = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '\n\nHuman: ' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}{{ '\n\nAssistant: ' + message['content'] }}"
    "{% else %}{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n\nAssistant:' }}{% endif %}"
)


def render(tokenizer: Any, prompt: Prompt) -> list[int]:
    """Token ids of a prompt. Text is tokenised as it stands; messages go through the chat template.

    The template's own special tokens are the only ones a conversation gets.
    """
    if isinstance(prompt.text, str):
        return list(tokenizer(prompt.text, add_special_tokens=True)["input_ids"])
    if tokenizer.chat_template is None:
        tokenizer.chat_template = PLAIN
    text = tokenizer.apply_chat_template([m.to_json() for m in prompt.messages], add_generation_prompt=True, tokenize=False)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def as_chat(prompt: Prompt, system: str = "") -> Prompt:
    """The prompt as a conversation, which a chat template renders: text becomes a turn of the user, `system` a first turn that
    says how to answer. The columns stay.

    >>> [m.role for m in as_chat(Prompt("2 + 2?"), "Answer in figures.").messages]
    ['system', 'user']
    """
    before = (Message("system", system),) if system else ()
    return Prompt((*before, *prompt.messages), prompt.columns)
