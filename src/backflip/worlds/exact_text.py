"""An exact world as text, in the shape that real loops take: a model that can be any distribution, a tokenizer, a reward.

The hidden state of a position is the one-hot code of (prompt, tokens so far), so a linear critic on it is a table of values, as
the policy is a table of logits. Texts are the tokens' numbers: the response 0, 2, 1 reads "021". Prompts are "A", "B", …
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from backflip.records import Prompt
from backflip.worlds.exact import ExactWorld, TabularLM, locate


class Output(NamedTuple):
    """What a causal model of transformers returns, as far as a policy reads it."""

    logits: Tensor
    hidden_states: tuple[Tensor, ...]


class ExactModel(TabularLM):
    """`TabularLM` with hidden states and with the arguments of a transformers model; its width is the number of states.

    States are numbered prompt by prompt: the prefixes as `ExactWorld` numbers them, then the complete responses.
    """

    def __init__(self, world: ExactWorld, table: Tensor | None = None) -> None:
        super().__init__(world, table)
        self.states = world.prompts * (world.n_prefixes + world.n_sequences)
        self.config = SimpleNamespace(hidden_size=self.states, max_position_embeddings=world.length + 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any) -> Output:  # type: ignore[override]
        """Logits of the last `logits_to_keep` positions and, with `output_hidden_states`, the one-hot states of all; no cache is
        kept."""
        if attention_mask is None:
            attention_mask = (input_ids != self.pad_token_id).long()
        logits = super().forward(input_ids, attention_mask).logits[:, -options.get("logits_to_keep", 0) :]
        if not options.get("output_hidden_states"):
            return Output(logits, ())
        state = locate(self.world, input_ids, attention_mask)
        code = state.prompts * (self.states // self.world.prompts) + state.prefixes
        return Output(logits, (torch.nn.functional.one_hot(code, self.states).to(self.table.dtype),))

    def get_input_embeddings(self) -> Any:
        """Says how many tokens the model knows."""
        return SimpleNamespace(weight=torch.empty(self.vocab_size, 0))

    def save_pretrained(self, folder: str | Path) -> None:
        """The table as safetensors."""
        save_file({"table": self.table.detach()}, Path(folder) / "model.safetensors")


class Digits:
    """The tokenizer of an exact world: one character a token; prompts are "A", "B", …"""

    chat_template = None

    def __init__(self, model: ExactModel) -> None:
        self.world = model.world
        self.eos_token_id, self.pad_token_id = model.eos_token_id, model.pad_token_id

    def __len__(self) -> int:
        return self.pad_token_id + 1

    def __call__(self, text: str, **options: Any) -> dict[str, list[int]]:
        return {"input_ids": [int(c) if c.isdigit() else self.world.vocab + ord(c) - ord("A") for c in text]}

    def decode(self, ids: list[int], **options: Any) -> str:
        """The digits of a response."""
        return "".join(str(i) for i in ids if i < self.world.vocab)

    def save_pretrained(self, folder: str | Path) -> None:
        """There is nothing to write."""


def prompts_of(world: ExactWorld) -> list[Prompt]:
    """The world's prompts as text."""
    return [Prompt(chr(ord("A") + p)) for p in range(world.prompts)]


def gold_of(world: ExactWorld, sign: float = 1.0) -> Any:
    """The world's reward as a reward function of texts, times `sign`."""

    def reward(prompts: list[str], completions: list[str], **columns: list[Any]) -> list[float]:
        places = torch.tensor([ord(p) - ord("A") for p in prompts])
        tokens = torch.tensor([[int(c) for c in text] for text in completions])
        return [sign * s for s in world.scores(places, tokens).tolist()]

    return reward
