"""Settings that experiments in the world of reviews share."""

from __future__ import annotations

from backflip.settings import SFT, Optim, Reward

DEMONSTRATED = SFT(
    batch_size=32, max_length=64, holdout=0.02, save_every=500, log_every=50,
    optim=Optim(
        learning_rate=3e-3, lr_schedule="cosine", warmup_steps=30, adam_betas=(0.9, 0.95), adam_eps=1e-8,
        adam_eps_convention="torch",
    ),
)  # fmt: skip
"""How a small policy learns to write like demonstrations."""

READ = SFT(
    batch_size=32, max_length=128, holdout=0.02, save_every=500, log_every=50,
    optim=Optim(
        learning_rate=4e-3, lr_schedule="cosine", warmup_steps=30, adam_betas=(0.9, 0.95), adam_eps=1e-8,
        adam_eps_convention="torch",
    ),
)  # fmt: skip
"""How a small base model reads raw reviews."""

JUDGING = Reward(
    batch_size=32, max_length=128, epochs=2.0, holdout=0.0, save_every=1000, log_every=50,
    optim=Optim(learning_rate=1e-3, warmup_steps=10),
)  # fmt: skip
"""How a reward model of reviews learns from people."""
