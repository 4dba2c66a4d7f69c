"""Where methods with the penalty in the loss come to rest: not at π*, but where their own expected gradient is 0.

Two things differ from the gradient of E[r] − β KL(π‖ρ). The reward's part is divided by a standard deviation, of each prompt
(GRPO) or of all completions (REINFORCE++-baseline), so β weighs more or less than it says. And each token pays for its own
divergence alone, KL(π‖ρ) for k2 and k3+ and KL(ρ‖π) for k3, at prefixes that are taken as given.

Legend: P prompts, S sequences, N prefixes, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from backflip.lab.exact_enumeration import prefix_chances
from backflip.settings import Online
from backflip.worlds.exact import ExactWorld, sequence_kl

HAVE_ONE = ("gopher", "reinforce++-baseline", "grpo", "grpo-process")
"""Methods whose point of rest is found; R1-Zero's reference moves."""


def point_of_rest(world: ExactWorld, online: Online, *, updates: int = 800, learning_rate: float = 0.1) -> Tensor:
    """The table (P, N, V) where the expected gradient of a method vanishes, in the limit of large groups; found by Adam, whose
    step size falls linearly to 0, from the reference."""
    table = world.reference.clone().requires_grad_()
    optimizer = torch.optim.Adam([table], lr=learning_rate)
    for update in range(updates):
        optimizer.param_groups[0]["lr"] = learning_rate * (1 - update / updates)
        optimizer.zero_grad()
        table.grad = torch.autograd.grad(_surrogate(world, table, online), table)[0].neg()
        optimizer.step()
    return table.detach()


def _surrogate(world: ExactWorld, table: Tensor, online: Online) -> Tensor:
    """A scalar whose gradient is the method's expected one (its value means nothing)."""
    logps_PS = world.sequence_logps(table)
    chances_PS = logps_PS.detach().exp()
    centred_PS = world.rewards - (chances_PS * world.rewards).sum(1, keepdim=True)
    variance_P1 = (chances_PS * centred_PS.square()).sum(1, keepdim=True)
    own_P1, whole = variance_P1.sqrt(), variance_P1.mean().sqrt()
    scale = {"grpo": own_P1, "grpo-process": own_P1, "reinforce++-baseline": whole}.get(online.advantage_estimator)
    if online.advantage_estimator == "reinforce++-baseline":  # the mean of G holds the sample itself, and so does the deviation
        assert scale is not None
        scale = scale / ((online.num_generations - 1) / online.num_generations) ** 0.5
    reward = (chances_PS * centred_PS / (1.0 if scale is None else scale) * logps_PS).sum()
    here, there = table.log_softmax(-1), world.reference.log_softmax(-1)
    own_PN = sequence_kl(there, here) if online.kl_estimator == "k3" else sequence_kl(here, there)
    return (reward - online.kl_coef * (prefix_chances(world, table.detach()) * own_PN).sum()) / world.prompts
