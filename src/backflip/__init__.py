"""backflip: reinforcement learning from human feedback as one system."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backflip.api import algorithm, ask, dpo, fit_reward, grpo, improve, ppo, rate, rloo, sft
    from backflip.client import Client
    from backflip.feedback.labelers import Oracle
    from backflip.policies.loading import load_policy
    from backflip.records import Prompt
    from backflip.rewards.learned import RewardModel
    from backflip.seeds import Seeds
    from backflip.store import Store

__version__ = "0.1.0"

__all__ = [
    "Client", "Oracle", "Prompt", "RewardModel", "Seeds", "Store",
    "algorithm", "ask", "dpo", "fit_reward", "grpo", "improve", "load_policy", "ppo", "rate", "rloo", "sft",
]  # fmt: skip

_WHERE = {
    "Client": "client",
    "Oracle": "feedback.labelers",
    "Prompt": "records",
    "RewardModel": "rewards.learned",
    "Seeds": "seeds",
    "Store": "store",
    "load_policy": "policies.loading",
}
"""Where each public name lives; those not listed live in `api`."""


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used, so that `import backflip` loads nothing heavy."""
    if name not in __all__:
        raise AttributeError(f"module 'backflip' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"backflip.{_WHERE.get(name, 'api')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
