"""Rewards that can be checked: the right answer between the tags, and the template kept (DeepSeek-R1-Zero, section 2.2.2)."""

from __future__ import annotations

from typing import Any

from backflip.worlds.arithmetic.notation import read

FORMAT_REWARD = 0.1


def accuracy(prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[float]:
    """1 where the text between the answer tags is exactly the right answer, else 0.

    The right answers are the column `answer`. A completion that is cut off, or says anything outside the template, has no answer.

    >>> accuracy(["a1+A1="], ["<think></think><answer>a2</answer>"], answer=["a2"])
    [1.0]
    """
    return [float(read(text).answer == right) for text, right in zip(completions, columns["answer"], strict=True)]


def format_tags(prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[float]:
    """1 where a completion is a thought between think tags, then an answer between answer tags, and nothing else; 0 else."""
    return [float(read(text).well_formed) for text in completions]


def reward(prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[float]:
    """The sum that is optimised: accuracy, and a tenth for the format."""
    right = accuracy(prompts, completions, **columns)
    formed = format_tags(prompts, completions, **columns)
    return [a + FORMAT_REWARD * f for a, f in zip(right, formed, strict=True)]
