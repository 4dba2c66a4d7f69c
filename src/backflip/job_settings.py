"""What each command reads, writes and does: the settings of its job, those of training inside."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from backflip.algorithms import GRPO, RLOO, algorithm_settings
from backflip.config import nested, setting
from backflip.settings import SFT, Direct, Online, Optim, Reward, Rounds, Sampling, Tiny, Watch


@dataclass(frozen=True, kw_only=True)
class SFTJob:
    """`backflip sft`: a policy learns to write like its data."""

    policy: str = setting(help="Model to start from: a folder, or a name that transformers can load; 'tiny' builds a small one.")
    data: str = setting(help="File of demonstrations (prompt/completion, messages, dialogues) or of raw text.")
    output: str = setting("runs/sft", "Folder of the run.")
    seed: int = setting(0, "Root of all randomness.")
    lora: int | None = setting(None, "Train a LoRA adapter of this rank instead of all weights.", at_least=1)
    max_rows: int | None = setting(None, "Use only the first rows of the data.", at_least=1)
    train: SFT = nested(SFT)


@dataclass(frozen=True, kw_only=True)
class RewardJob:
    """`backflip reward`: a reward model from comparisons."""

    policy: str = setting(
        help="Model to start from: usually the fine-tuned policy; or an encoder such as BERT, or a reward model to go on with."
    )
    data: str = setting(help="Comparisons: a feedback store (.db) or a file; with other `labels`, a file of marked texts.")
    output: str = setting("runs/reward", "Folder of the run.")
    labels: Literal["comparisons", "outcome", "token", "step"] = setting(
        "comparisons",
        "What the data say: which of two texts is better; whether a text is right, learned at its last token or at every token; "
        "or whether each step is.",
    )
    scratch: bool = setting(False, "Keep only the shape and the tokenizer of that model and draw its weights anew.")
    pretraining: str | None = setting(
        None, "Comparisons to learn from first, such as votes of a forum: preference model pretraining (Askell et al. 2021)."
    )
    pretraining_form: Literal["ranked", "binary"] = setting(
        "ranked", "Learn from those as they are, or from each text called good above the same text called bad, and back."
    )
    pretraining_epochs: float = setting(1.0, "Passes over them.", above=0)
    demonstrations: str | None = setting(
        None, "File of demonstrations whose scores are shifted to mean 0 in the end, in place of the samples' (InstructGPT)."
    )
    sentinel: float = setting(
        0.0,
        "Share of the prompts whose comparisons train a second reward model, the sentinel, instead, to be watched and never "
        "optimised against.",
        at_least=0, at_most=0.9,
    )  # fmt: skip
    folds: int = setting(0, "Also measure by cross-validation in so many parts; 0: do not.", at_least=0)
    fold_by: Literal["prompt", "annotator"] = setting("prompt", "What a part leaves out whole: prompts, or people.")
    improved: str | None = setting(
        None, "What `policy` became since: the report also tells accuracy by how much likelier texts are under it, in nats."
    )
    seed: int = setting(0, "Root of all randomness.")
    max_rows: int | None = setting(None, "Use only the first comparisons.", at_least=1)
    train: Reward = nested(Reward)
    sampling: Sampling = nested(Sampling, temperature=1.0)


@dataclass(frozen=True, kw_only=True)
class PPOJob:
    """`backflip ppo`: a policy is improved against a reward model."""

    policy: str = setting(help="Policy to improve; it is also the reference of the KL penalty.")
    reward: str = setting(help="Folder of the reward model, or of an ensemble.")
    sentinel: str | None = setting(None, "Folder of a second reward model that is only watched.")
    data: str = setting(help="File of prompts.")
    output: str = setting("runs/ppo", "Folder of the run.")
    seed: int = setting(0, "Root of all randomness.")
    lora: int | None = setting(None, "Train a LoRA adapter of this rank instead of all weights.", at_least=1)
    max_rows: int | None = setting(None, "Use only the first prompts.", at_least=1)
    train: Online = nested(Online)
    watch: Watch = nested(Watch)


@dataclass(frozen=True, kw_only=True)
class GRPOJob(PPOJob):
    """`backflip grpo`: the same loop with GRPO's parts and numbers."""

    output: str = setting("runs/grpo", "Folder of the run.")
    train: Online = dataclasses.field(default=GRPO)


@dataclass(frozen=True, kw_only=True)
class RLOOJob(PPOJob):
    """`backflip rloo`: the same loop with RLOO's parts and numbers."""

    output: str = setting("runs/rloo", "Folder of the run.")
    train: Online = dataclasses.field(default=RLOO)


@dataclass(frozen=True, kw_only=True)
class RLJob:
    """`backflip rl`: a policy is improved against rewards of any kind by any algorithm of the family."""

    algorithm: str = setting("grpo", "Which choice of parts and numbers to start from; `backflip rl --list` names all.")
    policy: str = setting(help="Policy to improve; it is also the reference of the KL penalty.")
    reward: tuple[str, ...] = setting(
        (),
        "Rewards, each NAME, NAME:WEIGHT or NAME(option=value):WEIGHT: built in (math, number, format, …), "
        "FILE.py:function, or the folder of a reward model; none: what the environment pays.",
    )
    environment: str | None = setting(
        None,
        "Environment of several turns that answers the policy: calculator, guess, NAME(option=value), or FILE.py:Class; "
        "none: one completion and its reward.",
    )
    sentinel: str | None = setting(None, "Folder of a reward model that is only watched.")
    data: str = setting(help="File of prompts; their other columns go to the rewards.")
    template: str | None = setting(
        None, "Text around each prompt, which stands where it says {prompt}; 'r1': that of DeepSeek-R1-Zero."
    )
    pretraining: str | None = setting(None, "File of raw text to mix in where `ptx_coef` says so.")
    output: str = setting("runs/rl", "Folder of the run.")
    seed: int = setting(0, "Root of all randomness.")
    lora: int | None = setting(None, "Train a LoRA adapter of this rank instead of all weights.", at_least=1)
    max_rows: int | None = setting(None, "Use only the first prompts.", at_least=1)
    train: Online = dataclasses.field(default=GRPO)
    watch: Watch = nested(Watch)


def started_from(name: str) -> type[RLJob]:
    """`RLJob` with the numbers of an algorithm as its defaults. Raises ConfigError as `algorithm_settings` does."""
    numbers = algorithm_settings(name)

    @dataclass(frozen=True, kw_only=True)
    class Started(RLJob):
        algorithm: str = setting(name)
        train: Online = dataclasses.field(default=numbers)

    return Started


@dataclass(frozen=True, kw_only=True)
class DPOJob:
    """`backflip dpo`: a policy learns from comparisons directly."""

    policy: str = setting(help="Policy to improve, usually the fine-tuned one; it is also the reference.")
    data: str = setting(help="Comparisons: a feedback store (.db) or a file.")
    output: str = setting("runs/dpo", "Folder of the run.")
    seed: int = setting(0, "Root of all randomness.")
    lora: int | None = setting(None, "Train a LoRA adapter of this rank instead of all weights.", at_least=1)
    max_rows: int | None = setting(None, "Use only the first comparisons.", at_least=1)
    train: Direct = nested(Direct)


@dataclass(frozen=True, kw_only=True)
class SampleJob:
    """`backflip sample`: completions of a policy."""

    policy: str = setting(help="Policy to sample from.")
    data: str = setting(help="File of prompts.")
    output: str | None = setting(None, "File to write the samples to, one JSON line each; none: print them.")
    n: int = setting(1, "Completions per prompt.", at_least=1)
    max_rows: int | None = setting(10, "Use only the first prompts.", at_least=1)
    seed: int = setting(0, "Root of all randomness.")
    reward: str | None = setting(None, "Reward model whose score to show beside each completion.")
    sampling: Sampling = nested(Sampling, temperature=1.0, max_new_tokens=128)


@dataclass(frozen=True, kw_only=True)
class RoundsJob:
    """`backflip rounds`: the whole loop on a policy of yours, or on a tiny one made from your texts."""

    policy: str = setting(
        help="Policy to start from: a folder, a name that transformers can load, "
        "or 'tiny': a small one made from the job's own data."
    )
    data: str | None = setting(
        None, "File of prompts; the last `arena_prompts` of them are kept for the arena. None: the prompts of `comparisons`."
    )
    texts: str | None = setting(
        None, "Raw text to pretrain a tiny policy on; none: the dialogues of `demonstrations` and `comparisons`."
    )
    demonstrations: str | None = setting(None, "File of demonstrations to fine-tune the policy on first.")
    comparisons: str | None = setting(
        None, "File of recorded comparisons, from which the first reward model learns in place of questions."
    )
    output: str = setting("runs/rounds", "Folder of the run; it holds the feedback store too.")
    seed: int = setting(0, "Root of all randomness.")
    lora: int | None = setting(None, "Train LoRA adapters of this rank instead of all weights.", at_least=1)
    max_rows: int | None = setting(None, "Use only the first rows of each file.", at_least=3)
    labeler: str = setting(
        "human",
        "Who answers: 'human' (on the pages of `backflip studio`, or with `backflip label`), 'recorded' (nobody is asked: "
        "`comparisons` say it all and the sentinel judges the "
        "arena), or the folder of a reward model that plays the annotator.",
    )
    noise: float = setting(0.0, "Share of answers that such a reward model gives blindly.", at_least=0, at_most=1)
    tiny: Tiny = nested(Tiny)
    pretrain: SFT = nested(
        SFT, epochs=4.0, batch_size=16, max_length=256, holdout=0.02, save_every=200, log_every=20,
        optim=Optim(
            learning_rate=3e-3, lr_schedule="cosine", warmup_steps=30, adam_betas=(0.9, 0.95), adam_eps=1e-8,
            adam_eps_convention="torch",
        ),
    )  # fmt: skip
    finetune: SFT = nested(SFT)
    train: Rounds = nested(Rounds)


@dataclass(frozen=True, kw_only=True)
class DemoJob:
    """`backflip demo`: the whole system on a laptop, from nothing, with simulated people."""

    output: str = setting("runs/demo", "Folder of the run.")
    seed: int = setting(0, "Root of all randomness.")
    documents: int = setting(12000, "Documents of the corpus to pretrain on.", at_least=100)
    demonstrations: int = setting(1500, "Demonstrations to fine-tune on.", at_least=10)
    human: bool = setting(False, "Have a person answer, on a page of the studio, in place of simulated people.")
    answers: int = setting(100, "With a person: how many answers to a set of questions are enough to go on.", at_least=10)
    people: int = setting(20, "Simulated annotators, each with a taste of their own.", at_least=1)
    taste_spread: float = setting(0.2, "How far tastes scatter around gold.", at_least=0)
    noise: float = setting(0.1, "Share of answers given blindly.", at_least=0, at_most=1)
    choice_temperature: float = setting(0.4, "How unsure people are about small differences, in units of gold.", at_least=0)
    tie_width: float = setting(0.05, "Differences in gold below this are called ties.", at_least=0)
    vocabulary: int = setting(640, "Tokens of the tokenizer trained on the corpus.", at_least=300)
    pretrain: SFT = nested(
        SFT, batch_size=16, max_length=128, holdout=0.01, save_every=200, log_every=20,
        optim=Optim(
            learning_rate=4e-3, lr_schedule="cosine", warmup_steps=30, adam_betas=(0.9, 0.95), adam_eps=1e-8,
            adam_eps_convention="torch",
        ),
    )  # fmt: skip
    finetune: SFT = nested(
        SFT, batch_size=16, max_length=128, save_every=100,
        optim=Optim(learning_rate=1e-3, lr_schedule="cosine", adam_eps=1e-8, adam_eps_convention="torch"),
    )  # fmt: skip
    loop: Rounds = nested(
        Rounds,
        rounds=2, comparisons=2800, kl_budget=2.0, arena_prompts=300,
        sampling=Sampling(temperature=0.7, max_new_tokens=36, slots=256),
        reward=Reward(batch_size=32, max_length=128, epochs=2.0, optim=Optim(learning_rate=1e-3, warmup_steps=10)),
        ppo=Online(
            steps=24, batch_size=64, ppo_epochs=2, kl_coef=0.06, kl_horizon=640, save_every=12,
            mask_after_truncation=True, sampling=Sampling(temperature=0.7, max_new_tokens=36),
            optim=Optim(learning_rate=3e-4, max_grad_norm=1.0),
        ),
    )  # fmt: skip


HUMAN_DEMO = DemoJob(
    output="runs/demo-human", human=True,
    loop=dataclasses.replace(
        DemoJob().loop, rounds=1, comparisons=300, kl_budget=4.0, arena_prompts=60,
        reward=dataclasses.replace(DemoJob().loop.reward, epochs=6.0),
        ppo=dataclasses.replace(DemoJob().loop.ppo, steps=32, kl_coef=0.05),
    ),
)  # fmt: skip
"""The demo with a person: one round of questions that somebody can answer in minutes, and a short blind arena."""
