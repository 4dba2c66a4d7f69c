"""The settings of `r1-zero`: the runs and how they are measured; those of the base model stand in `arithmetic_base`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from backflip.algorithms import GRPO
from backflip.config import setting
from backflip.lab.arithmetic_base import Base
from backflip.settings import Online, Sampling


@dataclass(frozen=True, kw_only=True)
class Settings(Base):
    """What is run. The corpus is a third larger than `Base` has it, with twice as many full scratchpads: when a model learns to
    add is a matter of luck, and a base that never did has nothing to reinforce."""

    documents: int = setting(240000, "Worked problems in the corpus.", at_least=32)
    direct: float = setting(0.5, "Share of the corpus that answers directly.", at_least=0, at_most=1)
    compare_steps: int = setting(24, "Steps of each method that is compared at equal samples.", at_least=1)
    compare_batch: int = setting(256, "Episodes per step of each of them.", at_least=2)
    control_steps: int = setting(40, "Steps of the runs on the control task.", at_least=1)
    control_runs: int = setting(
        3,
        "Runs of Dr. GRPO on the control task, each on its own problems: where no style pays, one drifts by chance.",
        at_least=1,
    )
    control_batch: int = setting(256, "Episodes per step of each of them.", at_least=2)
    problems: int = setting(256, "Test problems on which a model is measured before and after.", at_least=1)
    problems_between: int = setting(64, "Test problems on which each checkpoint is measured.", at_least=1)
    tries: int = setting(16, "Completions of each test problem: the k of pass@k and maj@k.", at_least=1)
    grpo: Online = dataclasses.field(
        default=dataclasses.replace(
            GRPO, steps=100, batch_size=512, num_generations=16, num_minibatches=4, kl_coef=0.001, missing_penalty=0.0,
            save_every=10, sampling=Sampling(temperature=1.0, max_new_tokens=80, slots=256),
            optim=dataclasses.replace(GRPO.optim, learning_rate=3e-4),
        )
    )  # fmt: skip

    def biased_control(self) -> Online:
        """GRPO on the control task: divides by each completion's own length and by the group's standard deviation."""
        return dataclasses.replace(self.grpo, steps=self.control_steps, batch_size=self.control_batch)

    def control(self) -> Online:
        """The same without the two biases (Dr. GRPO, Liu et al. 2025, section 3.2)."""
        return dataclasses.replace(self.biased_control(), advantage_estimator="dr_grpo", averaging="seq-mean-token-sum-norm")

    def compared(self) -> dict[str, Online]:
        """Four methods that draw as many samples, from the same problems, and make one update a step, with the same step size
        and KL penalty."""
        grpo = dataclasses.replace(self.grpo, steps=self.compare_steps, batch_size=self.compare_batch, num_minibatches=1)
        plain = dataclasses.replace(grpo, policy_loss="reinforce", averaging="seq-mean-token-sum")
        return {
            "grpo": grpo,
            "ppo": dataclasses.replace(
                grpo, advantage_estimator="gae", critic="shared", lam=1.0, whiten_advantages=True,
                averaging="token-mean",
            ),
            "rloo": dataclasses.replace(plain, advantage_estimator="rloo"),
            "reinforce": dataclasses.replace(plain, advantage_estimator="return"),
        }  # fmt: skip
