"""What must hold while a policy is trained, checked as it happens, each with the usual cause of its failing.

A broken invariant stops the run: the numbers from there on would not be those of the algorithm. What is merely unlikely is
counted and said once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from backflip.errors import NumericsError
from backflip.maths.kl import k3
from backflip.maths.tensors import keep


class Invariants:
    """Counts checks and warnings; `say` is told each kind of warning once."""

    def __init__(self, say: Callable[[str], None] = lambda _: None) -> None:
        self.checked = 0
        self.warned = 0
        self._say = say
        self._said: set[str] = set()

    def hold(self, true: bool, broken: str) -> None:
        """Count a check. Raises NumericsError with the sentence `broken` when it failed."""
        self.checked += 1
        if not true:
            raise NumericsError(broken)

    def expect(self, true: bool, kind: str, sentence: str) -> None:
        """Count a check that may fail by chance; a failure is counted, and said the first time."""
        self.checked += 1
        if not true:
            self.warned += 1
            if kind not in self._said:
                self._said.add(kind)
                self._say(sentence)

    def metrics(self) -> dict[str, float]:
        """Checks and warnings since the last call."""
        found = {"invariants/checked": float(self.checked), "invariants/warned": float(self.warned)}
        self.checked = self.warned = 0
        return found

    # ------------------------------------------------------------------------------------------------ what is checked

    def rollout(self, logps_BT: Tensor, mask_BT: Tensor, kept_BT: Tensor, longest: int) -> None:
        """Sampled log-probabilities are at most 0, the loss sees sampled tokens alone, and none beyond the longest."""
        worst = keep(logps_BT, mask_BT).max().item() if mask_BT.numel() else 0.0
        self.hold(
            worst <= 1e-6, f"a sampled token has log-probability {worst:.3g}, above 0; the usual cause is a sampler that does "
            "not normalise what it draws from",
        )  # fmt: skip
        outside = int((kept_BT.bool() & ~mask_BT.bool()).sum())
        self.hold(
            outside == 0, f"{outside} tokens that were not sampled are in the loss; the usual cause is a mask shifted by one, or "
            "text that was tokenised again",
        )  # fmt: skip
        length = int(mask_BT.sum(1).max()) if mask_BT.numel() else 0
        self.hold(length <= longest, f"a completion has {length} tokens where {longest} are the most")

    def divergence(self, logps_BT: Tensor, ref_logps_BT: Tensor, mask_BT: Tensor) -> None:
        """k3 is never below 0, and the mean of k1 is not below 0 by more than chance."""
        lowest = keep(k3(logps_BT, ref_logps_BT), mask_BT).min().item() if mask_BT.numel() else 0.0
        self.hold(
            lowest >= -1e-6,
            f"a token's k3 estimate of the KL is {lowest:.3g}, below 0; the usual cause is a log-probability above 0",
        )
        sums_B = keep(logps_BT - ref_logps_BT, mask_BT).sum(1).double()
        if len(sums_B) > 1:
            mean, error = sums_B.mean().item(), (sums_B.std() / len(sums_B) ** 0.5).item()
            self.expect(
                mean >= -4 * error - 1e-6, "negative KL",
                f"the KL to the reference is estimated at {mean:.3g} nats per sequence, below 0 by more than chance; the usual "
                "cause is a sampler that draws from another distribution than the one scored (top-k, top-p, a suppressed end of "
                "text)",
            )  # fmt: skip

    def sampler(self, sampled_logps_BT: Tensor, scored_BT: Tensor, mask_BT: Tensor, *, exact: bool) -> dict[str, float]:
        """The sampler and the scorer agree before any update: mean exp|Δ log p| is 1, within rounding where both compute alike
        (`exact`), within a tenth where the sampler is coarser."""
        distance_BT = keep((sampled_logps_BT - scored_BT).abs(), mask_BT)
        error = (keep(distance_BT.exp(), mask_BT).sum() / mask_BT.bool().sum().clamp(min=1)).item()
        self.hold(
            not mask_BT.any() or error < (1.0001 if exact else 1.1),
            f"the sampler and the scorer disagree: mean exp|Δ log p| is {error:.4f} where 1 is right; the usual cause is a "
            "difference in temperature, in position ids or in padding between generation and scoring",
        )
        if not exact:
            self.expect(
                error < 1.05, "coarse sampler",
                f"the sampler and the scorer differ: mean exp|Δ log p| is {error:.4f}; set sampling.precision to model if "
                "learning is unsteady",
            )  # fmt: skip
        return {"rollout/logp_max_diff": distance_BT.max().item(), "rollout/token_mult_prob_error": error}

    def first_ratio(self, log_ratio_BT: Tensor, mask_BT: Tensor, *, exact: bool) -> None:
        """π/π_old is 1 before any update: on average within 1e-4 and at every token within 1e-2 where both come from float32
        (`exact`), within 5e-2 and 0.5 where they do not.

        Float32 itself is that far off: of 20,000 tokens of a small model the worst differed by 4e-4 from what float64 gives.
        """
        mean, most = (1e-4, 1e-2) if exact else (5e-2, 0.5)
        off_BT = keep(log_ratio_BT.exp() - 1, mask_BT).abs()
        largest, average = off_BT.max().item(), (off_BT.sum() / mask_BT.bool().sum().clamp(min=1)).item()
        self.hold(
            average < mean and largest < most,
            f"before any update π/π_old is off 1 by {average:.2g} on average, by {largest:.2g} at one token; the usual cause is "
            "dropout left on, or old log-probabilities computed at another temperature or padding",
        )

    def group_means(self, advantages_BT: Tensor, mask_BT: Tensor, size: int) -> None:
        """What compares the completions of a prompt with each other sums to 0 over them."""
        on_BT = mask_BT.bool()
        first_B = on_BT.int().argmax(dim=1, keepdim=True)
        each_B = torch.where(on_BT.any(1), advantages_BT.gather(1, first_B).squeeze(1), torch.zeros_like(advantages_BT[:, 0]))
        means = each_B.double().view(-1, size).mean(1).abs()
        scale = each_B.abs().max().clamp(min=1.0).item()
        worst = means.max().item() if len(means) else 0.0
        self.hold(
            worst <= 1e-4 * scale, f"the advantages of one prompt's completions have mean {worst:.3g} where 0 is right; the "
            "usual cause is groups that are not `num_generations` rows in a row",
        )  # fmt: skip

    def same_reference(self, before: str, after: str) -> None:
        """The reference has the weights it began with."""
        self.hold(
            before == after,
            "the reference model changed while the policy was trained; the usual cause is weights that both share",
        )
