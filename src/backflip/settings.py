"""Every setting of training, with its published default, its bounds and its sentence.

Torch-free, so that `--help` is instant. The loops in `train/` take these classes as they are. Defaults are those of
the paper named in the class; `algorithms` holds the numbers of other papers, `job_settings` what a command reads and writes, and
a recipe under `recipes/` says where a task needs others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from backflip.config import nested, setting


@dataclass(frozen=True, kw_only=True)
class Optim:
    """AdamW and its schedule."""

    learning_rate: float = setting(1e-5, "Peak step size.", at_least=0)
    lr_schedule: Literal["linear", "cosine", "constant"] = setting(
        "linear", "How the learning rate falls after the warm-up: to zero linearly, to zero along a cosine, or not at all."
    )
    warmup_steps: int = setting(0, "Updates over which the learning rate rises from zero.", at_least=0)
    adam_betas: tuple[float, ...] = setting((0.9, 0.999), "Decay of Adam's two moving averages.", at_least=0, at_most=1)
    adam_eps: float = setting(1e-5, "Adam's ε.", above=0)
    adam_eps_convention: Literal["tensorflow", "torch"] = setting(
        "tensorflow",
        "Where ε is added: outside the bias correction (TensorFlow 1, the original RLHF code) or inside it (PyTorch).",
    )
    weight_decay: float = setting(0.0, "Decoupled weight decay.", at_least=0)
    max_grad_norm: float | None = setting(1.0, "Clip the gradient's norm to this; none: do not clip.", above=0)
    micro_batch_size: int = setting(64, "Most rows per forward pass; changes memory and speed, never the result.", at_least=1)
    micro_batch_tokens: int | None = setting(
        None, "Most tokens per forward pass, where rows differ in length; none: only rows are counted.", at_least=1
    )
    precision: Literal["float32", "bfloat16"] = setting(
        "float32",
        "Arithmetic of forward and backward passes: float32, or matrix products in bfloat16 with weights, norms and losses in "
        "float32.",
    )
    gradient_checkpointing: bool = setting(
        False, "Keep only what enters each layer and compute the rest again when going back: less memory, a third more time."
    )


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How completions are drawn."""

    max_new_tokens: int = setting(24, "Longest completion, in tokens.", at_least=1)
    temperature: float = setting(0.7, "Divide the logits by this before sampling.", above=0)
    top_k: int = setting(0, "Sample among the k likeliest tokens; 0: all.", at_least=0)
    top_p: float = setting(1.0, "Sample among the likeliest tokens that hold this much probability; 1: all.", above=0, at_most=1)
    min_p: float = setting(
        0.0, "Sample among tokens at least this many times as likely as the likeliest; 0: all.", at_least=0, at_most=1
    )
    repetition_penalty: float = setting(1.0, "Make tokens already in the text this much less likely; 1: no difference.", above=0)
    stop: tuple[str, ...] = setting((), "End a completion at any of these texts, which are not part of it.")
    ignore_eos: bool = setting(False, "Go on to the full length past the end-of-text token.")
    precision: Literal["model", "bfloat16", "float16"] = setting(
        "model",
        "Arithmetic of generation: the model's own, or matrix products in bfloat16 or float16, which are faster where the "
        "machine has them and move log-probabilities by about a hundredth.",
    )
    slots: int = setting(
        64, "Completions under way at once; changes memory and speed, never which numbers a row draws.", at_least=1
    )
    num_beams: int = setting(1, "Search for the likeliest completion with this many beams; 1: sample.", at_least=1)
    length_penalty: float = setting(
        1.0,
        "Beams are compared by their log-probability divided by their length to this power: 0 the sum, 1 the mean per token, "
        "more favours longer ones.",
        at_least=-10, at_most=10,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SFT:
    """Supervised fine-tuning; on raw text the same loop is pretraining."""

    epochs: float = setting(1.0, "Passes over the data.", above=0)
    max_steps: int | None = setting(None, "Stop after this many updates, whatever `epochs` says.", at_least=1)
    batch_size: int = setting(32, "Rows per update.", at_least=1)
    max_length: int = setting(512, "Longest row in tokens; longer ones keep their beginning.", at_least=2)
    loss_on_prompt: bool = setting(False, "Also learn to write the prompt, not only the completion.")
    holdout: float = setting(0.05, "Share of the rows kept aside to measure the loss on.", at_least=0, at_most=0.5)
    save_every: int = setting(50, "Updates between checkpoints.", at_least=1)
    log_every: int = setting(10, "Updates between lines of metrics.", at_least=1)
    optim: Optim = nested(Optim, learning_rate=5e-5, lr_schedule="cosine", adam_eps=1e-8, adam_eps_convention="torch")


@dataclass(frozen=True, kw_only=True)
class Members:
    """Several reward models of the same comparisons as one (Coste et al. 2023, with four or five)."""

    members: int = setting(1, "How many reward models to fit, each with a head and an order of the data of its own.", at_least=1)
    bootstrap: bool = setting(False, "Let each member learn from as many questions drawn with replacement, not from all.")
    combine: Literal["mean", "worst", "uncertainty"] = setting(
        "mean", "What the members' scores become: their mean, the lowest of them, or the mean less a multiple of their variance."
    )
    uncertainty: float = setting(0.5, "λ: that multiple, in units of one over the score.", at_least=0)


@dataclass(frozen=True, kw_only=True)
class Reward:
    """Reward model from comparisons (Ziegler et al. 2019; Stiennon et al. 2020; Ouyang et al. 2022)."""

    loss: Literal["bradley-terry", "plackett-luce", "best-of-k", "regression", "elo"] = setting(
        "bradley-terry",
        "What is learned: every pair of a question, whole rankings choice by choice, only the best of each ranking, the numbers "
        "that labelers gave, or the Elo of each text from the comparisons it was in.",
    )
    ties: Literal["half", "drop", "rao-kupper", "davidson"] = setting(
        "half",
        "What an answer of 'both alike' teaches: that each is better with probability ½, nothing, or that the difference is "
        "small, in the model of Rao and Kupper or of Davidson.",
    )
    tie_width: float = setting(
        0.5, "How small: Rao and Kupper's η in nats, or Davidson's ν, where two equal texts tie with chance ν/(2+ν).", above=0
    )
    error_rate: float = setting(
        0.0, "Share ε of answers taken to be blind: the chance of one is (1−ε) times the model's plus ε shared evenly.",
        at_least=0, at_most=0.9,
    )  # fmt: skip
    strength_margins: tuple[float, ...] = setting(
        (),
        "Nats by which a winner is asked to win for each stated strength from 1 on, such as 0,1,2,3; none: no more.",
        at_least=0,
    )
    batching: Literal["question", "pair"] = setting(
        "question",
        "What stands in a batch together: all pairs of a question, or any pairs, which over-fits within an epoch (InstructGPT, "
        "footnote 5).",
    )
    ratings: Literal["raw", "annotator"] = setting(
        "raw", "Regress on ratings as they are, or on each annotator's brought to mean 0 and standard deviation 1."
    )
    elo_k: float = setting(32.0, "Elo points that change hands at most in one game, where the loss is elo.", above=0)

    epochs: float = setting(1.0, "Passes over the comparisons; more than one over-fits soon (InstructGPT, App. C.2).", above=0)
    batch_size: int = setting(
        32, "Questions per update, all pairs of one ranking counting as one; with batching by pair, pairs.", at_least=1
    )
    max_length: int = setting(
        512, "Longest prompt plus completion in tokens; longer ones lose the start of the prompt.", at_least=2
    )
    score_at: Literal["eos", "last"] = setting(
        "eos", "Read the score at an end-of-text token added last, or at the text's own last token."
    )
    head_init: Literal["normal", "zero"] = setting("normal", "Initial reward head: N(0, 1/√(d+1)) or zero.")
    train_gain: bool = setting(True, "Let the gain in front of the score be learned along with the rest.")
    normalize_before: bool = setting(
        True, "Before training, scale scores to mean 0 and standard deviation 1 on the policy's samples."
    )
    normalize_after: bool = setting(True, "After training, scale them again.")
    normalization_samples: int = setting(256, "How many of the policy's samples the scaling is measured on.", at_least=2)
    holdout: float = setting(0.1, "Share of the questions kept aside to measure accuracy on.", at_least=0, at_most=0.5)
    dropout: bool = setting(False, "Keep the model's dropout on while training.")
    save_every: int = setting(50, "Updates between checkpoints.", at_least=1)
    log_every: int = setting(5, "Updates between lines of metrics.", at_least=1)
    ensemble: Members = nested(Members)
    optim: Optim = nested(Optim, learning_rate=5e-5)


@dataclass(frozen=True, kw_only=True)
class Online:
    """One loop for every policy-gradient method: a method is a choice of parts.

    The defaults are PPO with a KL penalty to the initial policy, as in Ziegler et al. 2019 (style tasks); `ALGORITHMS` below
    holds the other choices.
    """

    steps: int = setting(1000, "Rollout-and-update rounds.", at_least=1)
    batch_size: int = setting(512, "Episodes (completions) per step.", at_least=2)
    num_generations: int = setting(1, "Completions per prompt; must divide the batch size.", at_least=1)
    ppo_epochs: int = setting(4, "Passes over each step's episodes, each in a fresh order.", at_least=1)
    num_minibatches: int = setting(1, "Updates per pass.", at_least=1)
    advantage_estimator: Literal[
        "gae",
        "return",
        "return-baseline",
        "remax",
        "grpo",
        "grpo-process",
        "dr_grpo",
        "rloo",
        "reinforce++",
        "reinforce++-baseline",
    ] = setting(
        "gae",
        "What an action is measured against: a critic (gae), nothing (return), the mean return of all earlier steps "
        "(return-baseline), the greedy completion of its prompt (remax), or the other completions of its prompt: their "
        "mean and standard deviation (grpo), those of all their steps (grpo-process), their mean (dr_grpo), the mean of all but "
        "itself (rloo), the batch's (reinforce++), the prompt's mean scaled by the batch (reinforce++-baseline).",
    )
    policy_loss: Literal["ppo", "reinforce", "cispo", "gspo", "sapo", "trpo"] = setting(
        "ppo",
        "How the policy follows the advantage: a clipped ratio per token, the plain log-probability, a clipped weight, a ratio "
        "per sequence, a soft gate, or the natural gradient inside a trust region.",
    )
    gamma: float = setting(1.0, "Discount.", at_least=0, at_most=1)
    lam: float = setting(0.95, "λ of generalised advantage estimation.", at_least=0, at_most=1)
    cliprange: float = setting(0.2, "How far the probability ratio may leave 1 before its gradient is cut.", above=0)
    cliprange_high: float | None = setting(None, "The same above 1 alone (clip-higher); none: as below.", above=0)
    dual_clip: float | None = setting(
        None, "Where the advantage is below 0, let the loss of a token be at most this many times it; none: no bound.", above=1
    )
    trust_kl: float = setting(0.01, "TRPO's trust region: how far one step may go, in nats per token.", above=0)
    trust_iterations: int = setting(10, "TRPO's conjugate-gradient iterations.", at_least=1)
    trust_damping: float = setting(0.1, "TRPO's damping: this times the identity is added to the Fisher matrix.", at_least=0)
    mask_top_p: float | None = setting(
        None,
        "Draw only from the nucleus of this probability under the mask policy, a copy of the policy (NLPO); none: any token.",
        above=0, at_most=1,
    )  # fmt: skip
    mask_keep: int = setting(1, "Tokens that the mask leaves at least.", at_least=1)
    mask_every: int = setting(5, "Steps after which the mask policy becomes the policy of the moment.", at_least=1)
    entropy_coef: float = setting(0.0, "Weight of an entropy bonus per token.", at_least=0)
    cliprange_value: float | None = setting(0.2, "How far a value may leave its old estimate; none: do not clip.", above=0)
    importance_cap: float = setting(
        2.0, "Largest importance weight of a token that a sampler of other precision drew; unused when it is the same.", above=0
    )
    vf_coef: float = setting(0.1, "Weight of the value loss.", at_least=0)
    whiten_rewards: bool = setting(True, "Divide each minibatch's token rewards by their standard deviation, keeping the mean.")
    whiten_advantages: bool = setting(True, "Shift and scale each minibatch's advantages to mean 0 and variance 1.")
    unbiased_variance: bool = setting(False, "Divide by n−1 instead of n when whitening.")
    averaging: Literal["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"] = setting(
        "token-mean", "How token losses become one number; the last divides by the longest completion allowed (Dr. GRPO)."
    )
    kl_coef: float = setting(0.15, "β: initial weight of the KL penalty per token.", at_least=0)
    kl_in: Literal["reward", "loss"] = setting("reward", "Where the KL penalty goes: into the reward, or into the loss.")
    kl_controller: Literal["adaptive", "fixed"] = setting("adaptive", "Move β until the KL meets its target, or keep it.")
    kl_target: float = setting(6.0, "KL to the reference that the adaptive controller aims at, in nats per sequence.", above=0)
    kl_horizon: float = setting(
        10000, "Episodes in which β moves by about a fifth when the KL misses its target by a fifth or more.", above=0
    )
    kl_estimator: Literal["k1", "k2", "k3", "k3+", "abs"] = setting(
        "k1", "Per-token estimate of the KL that is penalised; k3+ has the value of k3 and the gradient of k2."
    )
    reference_every: int | None = setting(
        None, "Make the policy of the moment the KL penalty's reference every so many steps; none: never.", at_least=1
    )
    scale_logits: bool = setting(True, "Divide logits by the sampling temperature when scoring, policy and reference alike.")
    position_ids: Literal["mask", "absolute"] = setting(
        "mask", "Count positions from each prompt's first real token, or from the padded row's first column."
    )
    dropout: bool = setting(False, "Keep the model's dropout on while training.")
    critic: Literal["shared", "reward", "none"] = setting(
        "shared", "Values from a zero-initialised head on the policy, from a separate copy of the reward model, or not at all."
    )
    query_length: int | None = setting(None, "Longest prompt in tokens; none: whatever fits the model's context.", at_least=1)
    overlong: Literal["refuse", "truncate", "drop"] = setting(
        "refuse", "What to do with a longer prompt; truncating keeps its end."
    )
    sentence_prompts: bool = setting(False, "Cut prompts so that they start after a full stop and end with one.")
    truncate_at: str = setting("eos", "Score the text up to this token: 'eos' or a piece of text such as '.'.")
    truncate_after: int = setting(0, "Look for that token only from this many tokens on.", at_least=0)
    mask_after_truncation: bool = setting(False, "Leave tokens after the truncation out of the loss.")
    missing_penalty: float | None = setting(-1.0, "Score of a completion without that token; none: score it as it is.")
    mask_unfinished: bool = setting(False, "Leave completions without that token out of the loss.")
    overlong_buffer: int = setting(
        0,
        "Over the last so many tokens before max_new_tokens, take away from the score what grows from 0 to 1 (DAPO's soft "
        "overlong punishment); 0: nothing.",
        at_least=0,
    )
    max_draws: int = setting(
        1,
        "Draw new prompts up to this many times a step in place of those whose completions all score the same (DAPO's dynamic "
        "sampling); 1: keep what comes.",
        at_least=1,
    )
    ptx_coef: float = setting(
        0.0, "γ: weight of the language-model loss on pretraining text, in nats per token, mixed into each update.", at_least=0
    )
    ptx_ratio: float = setting(8.0, "Rows of pretraining text per episode.", above=0)
    max_skipped: int = setting(
        5, "Steps that may be skipped because something in them was not finite before the run is stopped.", at_least=0
    )
    save_every: int = setting(10, "Steps between checkpoints.", at_least=1)
    sample_every: int = setting(10, "Steps between stored samples.", at_least=1)
    sampling: Sampling = nested(Sampling, ignore_eos=True)
    optim: Optim = nested(Optim, max_grad_norm=None)


@dataclass(frozen=True, kw_only=True)
class Direct:
    """Direct preference optimisation; defaults of Rafailov et al. 2023. Adam without its first moment is their RMSprop."""

    loss: Literal["dpo", "ipo"] = setting(
        "dpo", "Bradley–Terry on the implicit rewards (dpo), or a square that certain answers cannot over-fit (ipo)."
    )
    beta: float = setting(0.1, "β: how strongly the policy is held to its reference.", above=0)
    label_smoothing: float = setting(
        0.0, "Share ε of answers taken to be wrong (cDPO): a belief p counts as (1−ε)p + ε(1−p).", at_least=0, at_most=0.49
    )
    length_normalized: bool | None = setting(
        None,
        "Average log-probabilities over a completion's tokens instead of summing them; none: as the loss's authors do, "
        "averaged for ipo, summed for dpo.",
    )
    epochs: float = setting(1.0, "Passes over the comparisons.", above=0)
    batch_size: int = setting(64, "Questions per update; all pairs of one ranking count as one question.", at_least=1)
    max_length: int = setting(
        512,
        "Longest prompt plus completion in tokens; longer ones lose the start of the prompt down to half of this, then the "
        "end of the completion.",
        at_least=2,
    )
    holdout: float = setting(0.1, "Share of the questions kept aside to measure accuracy on.", at_least=0, at_most=0.5)
    save_every: int = setting(50, "Updates between checkpoints.", at_least=1)
    log_every: int = setting(5, "Updates between lines of metrics.", at_least=1)
    sample_prompts: int = setting(4, "Prompts that the policy answers before and after, for the report.", at_least=0)
    sampling: Sampling = nested(Sampling, temperature=1.0, max_new_tokens=128)
    optim: Optim = nested(
        Optim, learning_rate=1e-6, lr_schedule="constant", warmup_steps=150, adam_betas=(0.0, 0.99), adam_eps=1e-8,
        adam_eps_convention="torch", max_grad_norm=10.0, micro_batch_size=16,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Watch:
    """How a policy is watched while it is improved, and what ends the run before its reward is gamed."""

    every: int = setting(
        0, "Steps between two looks at the policy on prompts it does not learn from; 0: nobody looks.", at_least=0
    )
    prompts: int = setting(128, "Prompts kept from training for that, the last ones given.", at_least=8)
    judges: tuple[str, ...] = setting(
        (), "Folders of reward models that nothing is optimised against; their opinion decides when to stop. None: they cannot."
    )
    questions: int = setting(
        0,
        "Fresh questions at each look, this policy beside the best one, to whoever answers at once; the answers decide when to "
        "stop and where to go back to. 0: the judges do.",
        at_least=0,
    )
    pessimism: float = setting(
        1.0, "Standard deviations between several judges that are taken off their mean opinion of a text.", at_least=0
    )
    tolerance: float = setting(
        0.05, "Share of what the judges' opinion has gained that may be lost again without harm.", at_least=0, at_most=1
    )
    allowance: float = setting(
        1.0, "Standard errors by which a look may fall short of that without adding to the evidence of a fall.", at_least=0
    )
    threshold: float = setting(5.0, "Evidence, summed over looks in standard errors, at which the run is stopped.", above=0)
    kl_stop: float | None = setting(
        None,
        "Stop where the policy is surely further than this from its reference, in nats per sequence; none: anywhere.",
        above=0,
    )
    suspects: int = setting(16, "Most samples that an alarm puts forward to be labelled.", at_least=1)
    vectors: bool = setting(
        True, "Also measure how far the texts lie from the first ones in the hidden states of the first judge."
    )
    pause: bool = setting(False, "Let alarms that ask for it hold the run until a person resumes it; no: they only say so.")


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """The outer loop: ask, learn what was meant, improve, compare, ask again."""

    rounds: int = setting(2, "How often to go round.", at_least=1)
    comparisons: int = setting(1000, "Questions asked in each round.", at_least=1)
    kl_budget: float = setting(
        5.0,
        "How much further from the first policy each round may go, in nats per sequence; round r aims at r times this.",
        above=0,
    )
    ask: Literal["random", "disagreement", "information", "near-tie", "explore"] = setting(
        "random",
        "Which of the candidates are asked: any, those on which the reward models of the last round differ or would learn most, "
        "those it holds for nearly equal, or those least like what was asked before.",
    )
    candidates: int = setting(1, "Pairs that are drawn for each question asked; `ask` chooses among them.", at_least=1)
    random_share: float = setting(
        0.2, "Share of the questions that is drawn at random among the candidates whatever `ask` says.", at_least=0, at_most=1
    )
    past: float = setting(
        0.0, "Share of the questions that sets the policy against one of the earlier ones.", at_least=0, at_most=1
    )
    mined: float = setting(
        0.0, "At most this share of the questions is about samples that the monitor found suspicious in the round before.",
        at_least=0, at_most=1,
    )  # fmt: skip
    refit: Literal["fresh", "continued"] = setting(
        "fresh", "Each round's reward model starts from the first policy, or from the one of the round before."
    )
    improve_from: Literal["last", "first"] = setting(
        "last", "Each round improves the policy that was kept last, or the first one again."
    )
    verify: int = setting(
        0,
        "Fresh questions after each round, its policy against the one before: surely better, it is kept; surely worse, it is "
        "dropped; else more is asked. 0: it is kept.",
        at_least=0,
    )  # fmt: skip
    patience: int = setting(2, "Rounds in a row that are not surely better, after which the loop stops.", at_least=1)
    arena_prompts: int = setting(200, "Prompts, never trained on, that all generations answer in the arena.", at_least=2)
    sentinel: float = setting(
        0.0,
        "Share of the prompts whose comparisons train a second reward model, the sentinel, instead: "
        "nothing is optimised against it, so a "
        "proxy that rises without it is being gamed.",
        at_least=0, at_most=0.9,
    )  # fmt: skip
    sampling: Sampling = nested(Sampling, temperature=1.0, max_new_tokens=64)
    reward: Reward = nested(Reward)
    ppo: Online = nested(Online)
    watch: Watch = nested(Watch)


@dataclass(frozen=True, kw_only=True)
class Tiny:
    """The size of a policy that is built on the spot, tokenizer included."""

    vocabulary: int = setting(2048, "Tokens of its byte-level BPE tokenizer.", at_least=300)
    hidden_size: int = setting(128, "Width D of the hidden states; a multiple of twice `heads`.", at_least=8)
    layers: int = setting(4, "Transformer blocks.", at_least=1)
    heads: int = setting(4, "Attention heads.", at_least=1)
    context: int = setting(512, "Longest prompt plus completion, in tokens.", at_least=16)
