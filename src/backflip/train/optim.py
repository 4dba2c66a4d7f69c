"""AdamW with either convention for ε, and the learning-rate schedules.

The two conventions differ by where ε enters. With bias corrections c₁ = 1 − β₁ᵗ, c₂ = 1 − β₂ᵗ:

    PyTorch           θ ← θ − α · (m / c₁) / (√(v / c₂) + ε)
    TensorFlow 1      θ ← θ − α · (√c₂ / c₁) · m / (√v + ε̂)

so at the same number TensorFlow's ε̂ is the larger by 1/√c₂ — 32 times at the first step with β₂ = 0.999 — and damps
the first updates ("The N Implementation Details of RLHF with PPO", detail 21; Kingma & Ba 2015, end of section 2).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from backflip.settings import Optim


class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019) over named parameters.

    State lives in `m` and `v` (first and second moment by parameter name) and `t` (updates made); `state` and `load`
    exchange it as plain tensors, so a checkpoint needs no pickle.
    """

    def __init__(
        self,
        parameters: Iterable[tuple[str, nn.Parameter]],
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        eps_convention: Literal["tensorflow", "torch"] = "torch",
        weight_decay: float = 0.0,
    ) -> None:
        self.parameters = dict(parameters)
        self.betas, self.eps, self.eps_convention, self.weight_decay = betas, eps, eps_convention, weight_decay
        self.m = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.v = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.t = 0

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """One update from the gradients now in the parameters. A parameter without a gradient is left alone."""
        self.t += 1
        names = [name for name, p in self.parameters.items() if p.grad is not None]
        if not names:
            return
        # One pass over memory instead of ten: the kernel behind torch.optim.AdamW(fused=True). It knows PyTorch's convention
        # alone, of which TensorFlow's is the case ε = ε̂/√c₂.
        beta1, beta2 = self.betas
        eps = self.eps if self.eps_convention == "torch" else self.eps / math.sqrt(1 - beta2**self.t)
        # The kernel takes the tensors of one device at a time.
        for device in dict.fromkeys(self.parameters[name].device for name in names):
            here = [name for name in names if self.parameters[name].device == device]
            params: list[Tensor] = [self.parameters[name] for name in here]
            grads = [p.grad for p in params if p.grad is not None]
            now = torch.tensor(float(self.t), device=device)
            torch._fused_adamw_(
                params, grads, [self.m[name] for name in here], [self.v[name] for name in here], [], [now] * len(here),
                lr=learning_rate, beta1=beta1, beta2=beta2, weight_decay=self.weight_decay, eps=eps, amsgrad=False,
                maximize=False,
            )  # fmt: skip

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """Moments and step count as named tensors."""
        moments = {f"{kind}.{name}": x for kind, group in (("m", self.m), ("v", self.v)) for name, x in group.items()}
        return moments | {"t": torch.tensor(self.t)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take up a saved state. Raises KeyError when a parameter's moments are missing."""
        self.t = int(state["t"])
        for kind, group in (("m", self.m), ("v", self.v)):
            for name, x in group.items():
                x.copy_(state[f"{kind}.{name}"])


def learning_rate(settings: Optim, update: int, total: int) -> float:
    """The step size of update `update` (from 0) of `total`.

    Linear warm-up over `warmup_steps`, then the schedule over the rest: linear reaches zero just after the last update.
    """
    if update < settings.warmup_steps:
        return settings.learning_rate * (update + 1) / settings.warmup_steps
    done = (update - settings.warmup_steps) / max(1, total - settings.warmup_steps)
    shape = {"linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done)), "constant": 1.0}
    return settings.learning_rate * max(0.0, shape[settings.lr_schedule])
