"""Sampling from fewer tokens than the policy knows: what may be drawn is what another policy finds likely.

Natural language policy optimisation (Ramamurthy et al. 2022, 2210.01241, section 4): a copy of the policy that is renewed every
few steps, the mask policy, allows the tokens of its nucleus, and the policy acts with what probability it gives to those. What
was allowed at each token is kept with the rollout, so that scoring asks for the same choice to the last bit.

Legend: B rows, V vocabulary, ... any leading shape.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from backflip.policies.language import LanguagePolicy
from backflip.rollout.sampling import truncate


@dataclass(frozen=True)
class Nucleus:
    """The smallest set of tokens whose probabilities under `policy` sum to at least `top_p`, and never fewer than `keep`."""

    policy: LanguagePolicy
    top_p: float
    keep: int = 1

    def allowed(self, logits_BV: Tensor, temperature: float) -> Tensor:
        """The tokens that may be drawn where the mask policy has these logits, (B, V) of truth values."""
        return nucleus(logits_BV / temperature, self.top_p, self.keep)


def nucleus(logits: Tensor, top_p: float, keep: int = 1) -> Tensor:
    """Which tokens (..., V) belong to the nucleus (Holtzman et al. 2020), the `keep` likeliest always among them.

    >>> nucleus(torch.tensor([0.5, 0.3, 0.2]).log(), 0.6).tolist()
    [True, True, False]
    """
    inside = truncate(logits, top_p=top_p).isfinite()
    if keep > 1:
        kth = logits.topk(min(keep, logits.shape[-1]), dim=-1).values[..., -1:]
        inside = inside | (logits >= kth)
    return inside
