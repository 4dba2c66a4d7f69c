"""The settings of `r1-zero`: the corpus, the base model, the runs and how they are measured."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from backflip.config import nested, setting
from backflip.settings import GRPO, SFT, Online, Optim, Sampling, Tiny
from backflip.worlds.arithmetic.traces import Noise, Styles


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is run. The shares are those of the corpus that the base model learns from."""

    seeds: int = setting(3, "Seeds 0, 1, … this many, each with a base model of its own.", at_least=1)
    documents: int = setting(120000, "Worked problems in the corpus.", at_least=32)
    copies: float = setting(0.2, "Share of the corpus that copies numbers, the control task.", at_least=0, at_most=0.9)
    drills: float = setting(0.3, "Share of the corpus that is a single column of a sum.", at_least=0, at_most=0.9)
    direct: float = setting(0.6, "Share of the corpus that answers directly.", at_least=0, at_most=1)
    short: float = setting(0.3, "Share with a short scratchpad; what is left has a full one.", at_least=0, at_most=1)
    slip: float = setting(0.03, "Share of a scratchpad's columns that are written wrong.", at_least=0, at_most=1)
    forget: float = setting(0.95, "Share of carries that are lost in the head, without a scratchpad.", at_least=0, at_most=1)
    forget_short: float = setting(0.6, "The same with a short scratchpad, which leaves them to the head.", at_least=0, at_most=1)
    wrong_copy: float = setting(0.3, "Share of copied numbers with a wrong digit, in every style alike.", at_least=0, at_most=1)
    bare: float = setting(0.2, "Share of the sums' texts that leave the tags out.", at_least=0, at_most=1)
    wait: float = setting(0.02, "Share of the texts in which a column is taken back and done again.", at_least=0, at_most=0.5)
    compare_steps: int = setting(24, "Steps of each method that is compared at equal samples.", at_least=1)
    compare_batch: int = setting(256, "Episodes per step of each of them.", at_least=2)
    control_steps: int = setting(40, "Steps of the runs on the control task.", at_least=1)
    control_batch: int = setting(256, "Episodes per step of each of them.", at_least=2)
    problems: int = setting(256, "Test problems on which a model is measured before and after.", at_least=1)
    problems_between: int = setting(64, "Test problems on which each checkpoint is measured.", at_least=1)
    tries: int = setting(16, "Completions of each test problem: the k of pass@k and maj@k.", at_least=1)
    tiny: Tiny = nested(Tiny, hidden_size=128, layers=3, heads=4, context=128)
    pretrain: SFT = nested(
        SFT, epochs=1.0, batch_size=32, max_length=128, holdout=0.01, save_every=500, log_every=50,
        optim=Optim(
            learning_rate=4e-3, lr_schedule="cosine", warmup_steps=50, adam_betas=(0.9, 0.95), adam_eps=1e-8,
            adam_eps_convention="torch",
        ),
    )  # fmt: skip
    grpo: Online = dataclasses.field(
        default=dataclasses.replace(
            GRPO, steps=60, batch_size=512, num_generations=16, num_minibatches=4, kl_coef=0.001, missing_penalty=0.0,
            save_every=10, sampling=Sampling(temperature=1.0, max_new_tokens=80, slots=256),
            optim=dataclasses.replace(GRPO.optim, learning_rate=3e-4),
        )
    )  # fmt: skip

    def mixture(self) -> Styles:
        """The styles of the corpus."""
        return Styles(direct=self.direct, short=self.short, full=1 - self.direct - self.short)

    def noise(self) -> Noise:
        """What goes wrong in it."""
        return Noise(
            forget=self.forget, forget_short=self.forget_short, slip=self.slip, copied=self.wrong_copy, bare=self.bare,
            wait=self.wait,
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
