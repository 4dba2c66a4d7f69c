"""Values V(s_t) of the states in which each response token was chosen.

Legend: B rows, Q query columns, T response columns, D hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from backflip.errors import ModelError
from backflip.policies.language import LanguagePolicy, Scores
from backflip.policies.tokens import TokenBatch
from backflip.rewards.learned import RewardModel


class SharedCritic:
    """A linear head on the policy's own last hidden state, zero at first (Ziegler et al. 2019; detail 11)."""

    needs_hidden = True

    def __init__(self, policy: LanguagePolicy) -> None:
        dtype = torch.promote_types(next(policy.model.parameters()).dtype, torch.float32)
        self.head = nn.Linear(policy.hidden_size, 1).to(policy.device, dtype)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def values(self, batch: TokenBatch, scores: Scores) -> Tensor:
        """V (B, T), differentiable in the head and, through the hidden states, in the policy."""
        assert scores.hidden_BTD is not None, "ask policy.score for hidden states"
        value_BT: Tensor = self.head(scores.hidden_BTD).squeeze(-1)
        return value_BT

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters."""
        return self.head.named_parameters(prefix="value_head")

    def save(self, folder: str | Path) -> None:
        """Write the head."""
        save_file({name: p.detach().contiguous() for name, p in self.parameters()}, Path(folder) / "value_head.safetensors")

    def restore(self, folder: str | Path) -> None:
        """Read the head."""
        saved = load_file(Path(folder) / "value_head.safetensors")
        with torch.no_grad():
            for name, parameter in self.parameters():
                parameter.copy_(saved[name])


class RewardCritic:
    """A separate network that starts as the reward model: its score at every position (Stiennon et al. 2020).

    Raises ModelError when the reward model reads other tokens than the policy writes.
    """

    needs_hidden = False

    def __init__(self, reward: RewardModel, policy: LanguagePolicy) -> None:
        theirs, ours = reward.tokenizer.get_vocab(), policy.tokenizer.get_vocab()
        if any(theirs.get(token) != number for token, number in ours.items()):
            raise ModelError("critic 'reward' needs a reward model with the policy's own tokenizer; use critic 'shared'")
        self.network = RewardModel.copy_of(reward)

    def values(self, batch: TokenBatch, scores: Scores) -> Tensor:
        """V (B, T), differentiable in the network."""
        return self.network.values(batch)

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters."""
        return ((f"critic.{name}", p) for name, p in self.network.parameters())

    def save(self, folder: str | Path) -> None:
        """Write the network."""
        self.network.save(folder)

    def restore(self, folder: str | Path) -> None:
        """Read the network."""
        self.network.restore(folder)


Critic = SharedCritic | RewardCritic
