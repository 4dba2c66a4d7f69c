"""A model's shape without what it has learned."""

from __future__ import annotations

import copy

import torch

from backflip.policies.language import LanguagePolicy
from backflip.seeds import Seeds


def redrawn(policy: LanguagePolicy, *, seeds: Seeds) -> LanguagePolicy:
    """A policy of the same shape and tokenizer that knows nothing: matrices N(0, 1/√D), norms 1, biases 0.

    D is the width of the hidden states; the draws come from the generator "scratch" of `seeds`.
    """
    model = copy.deepcopy(policy.merged().model)
    generator, std = seeds.torch("scratch"), policy.hidden_size**-0.5
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                drawn = torch.empty(parameter.shape).normal_(0.0, std, generator=generator)
                parameter.copy_(drawn.to(parameter))
            else:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
    return LanguagePolicy(model, policy.tokenizer, name=f"{policy.name}-scratch")
