"""The settings of `guard`: a policy, proxies of four sizes, judges, and the runs that are watched."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from backflip.config import nested, setting
from backflip.errors import ConfigError
from backflip.lab.reviews_settings import DEMONSTRATED
from backflip.settings import SFT, Online, Optim, Reward, Sampling, Tiny, Watch

LEFT_ALONE, HELD, HONEST = "left alone", "held", "honest"
"""The kinds of run: against a proxy without a KL penalty, against it but held near the first policy, and held against gold
itself, which cannot be gamed."""

ASKING = "monitor, people asked"
"""The rule that puts fresh questions to people at each look."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is run. Every run of a seed starts from the same policy; the proxies of a seed learn from the same comparisons."""

    seeds: int = setting(5, "Seeds 0, 1, … this many, each with a policy, judges, and proxies of its own.", at_least=1)
    documents: int = setting(4000, "Demonstrations that the policy learns to write like.", at_least=32)
    comparisons: int = setting(600, "Comparisons that each proxy learns from.", at_least=20)
    judged: int = setting(600, "Other comparisons, that each judge learns from.", at_least=20)
    judges: int = setting(
        3,
        "Judges, each with comparisons of its own; and as many taught ones, of the same and of spoilt texts besides.",
        at_least=1,
    )
    noise: float = setting(0.1, "Share of the comparisons that are answered blindly.", at_least=0, at_most=1)
    sizes: tuple[int, ...] = setting((16, 32, 64, 128), "Widths of the proxies.", at_least=8)
    judge_size: int = setting(64, "Width of the judges.", at_least=8)
    patience: int = setting(5, "Looks without a better one after which the rules that are patient stop.", at_least=1)
    kinds: tuple[str, ...] = setting((LEFT_ALONE, HONEST), f"Kinds of run, each once a proxy: {LEFT_ALONE}, {HELD}, {HONEST}.")
    penalty: float = setting(1.0, "Standard deviations that the ensemble's penalty takes off its mean.", at_least=0)
    questions: int = setting(
        96, "Questions that the monitor with people puts at each look, answered as blindly as the comparisons.", at_least=1
    )
    enough: float = setting(
        0.9, "Share of the peak's gain in gold that a rule must keep to have stopped well.", above=0, at_most=1
    )
    tiny: Tiny = nested(Tiny, vocabulary=640, hidden_size=96, layers=3, heads=4, context=96)
    pretrain: SFT = dataclasses.field(default=DEMONSTRATED)
    reward: Reward = nested(Reward, batch_size=32, max_length=96, epochs=2.0, optim=Optim(learning_rate=1e-3, warmup_steps=10))
    ppo: Online = nested(
        Online, steps=80, batch_size=64, ppo_epochs=2, kl_coef=0.0, kl_controller="fixed", save_every=1000,
        sampling=Sampling(temperature=0.7, max_new_tokens=36, ignore_eos=True, slots=256),
        optim=Optim(learning_rate=3e-4, max_grad_norm=None),
    )  # fmt: skip
    held_at: float = setting(4.0, "KL that all but those left alone are held at, in nats per sequence.", above=0)
    watch: Watch = nested(Watch, every=4, prompts=192)
    kl_stop: float = setting(10.0, "Budget of the rule that stops by KL alone, in nats per sequence.", above=0)

    def runs(self) -> dict[str, Online]:
        """The kinds of run. Raises ConfigError for a kind there is not."""
        held = dataclasses.replace(self.ppo, kl_coef=0.06, kl_controller="adaptive", kl_target=self.held_at, kl_horizon=1280)
        known = {LEFT_ALONE: self.ppo, HELD: held, HONEST: held}
        if unknown := [kind for kind in self.kinds if kind not in known]:
            raise ConfigError(f"kinds: there is no run {unknown[0]!r}; there are {', '.join(known)}")
        return {kind: known[kind] for kind in self.kinds}

    def proxy(self, width: int) -> Tiny:
        """The size of a reward model of that width; wide ones are deeper."""
        return dataclasses.replace(self.tiny, hidden_size=width, layers=1 if width < 64 else 2, heads=2)
