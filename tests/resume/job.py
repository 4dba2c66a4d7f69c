"""`python -m tests.resume.job KIND FOLDER`: one tiny training job, seconds long, to be interrupted.

It prints READY when everything is imported and DONE when the work is. Started again on the same folder it goes on; it
leaves with the exit code that the command line would give.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import torch

from backflip.algorithms import GRPO
from backflip.errors import BackflipError
from backflip.feedback.labelers import Oracle
from backflip.jobs import run_dpo, run_online, run_reward, run_sft
from backflip.policies.language import LanguagePolicy
from backflip.policies.loading import with_lora
from backflip.policies.tiny import TinyShape, tiny_policy
from backflip.records import Comparison, Prompt
from backflip.rewards.learned import RewardModel
from backflip.rounds import Loop
from backflip.runs import Run
from backflip.seeds import Seeds
from backflip.settings import SFT, Direct, Online, Optim, Reward, Rounds, Sampling
from backflip.train.sft import encode_demonstrations
from backflip.worlds.reviews import Reviews

KINDS = ("sft", "reward", "ppo", "grpo", "dpo", "rounds")
SEEDS = Seeds(7)
WORLD = Reviews()
PROMPTS = WORLD.prompts(24, SEEDS)
ARENA = WORLD.prompts(12, SEEDS, "test")
SHAPE = TinyShape(vocab_size=300, hidden_size=32, intermediate_size=64, layers=2, heads=2, context=256)
OPTIM = Optim(learning_rate=3e-3, lr_schedule="linear", warmup_steps=2)
SAMPLING = Sampling(temperature=1.0, max_new_tokens=10)
# Save and log in steps that do not divide each other nor the length of a run, as real settings do.
SETTINGS: dict[str, Any] = {
    "sft": SFT(epochs=2.4, batch_size=4, max_length=160, save_every=3, log_every=2, optim=OPTIM),
    "reward": Reward(
        epochs=2.4, batch_size=4, max_length=160, normalization_samples=16, save_every=3, log_every=2, optim=OPTIM
    ),
    "ppo": Online(
        steps=8, batch_size=8, ppo_epochs=2, num_minibatches=2, kl_target=0.5, kl_horizon=40, missing_penalty=None,
        save_every=3, sample_every=4, sampling=dataclasses.replace(SAMPLING, ignore_eos=True), optim=OPTIM,
    ),
    "dpo": Direct(
        epochs=2.4, batch_size=4, max_length=160, label_smoothing=0.1, sample_prompts=2, save_every=3, log_every=2,
        sampling=SAMPLING, optim=dataclasses.replace(OPTIM, micro_batch_size=3),
    ),
}  # fmt: skip
# Without a critic, in half precision, by a token budget, with layers computed again.
SETTINGS["grpo"] = dataclasses.replace(
    GRPO, steps=16, batch_size=8, num_generations=4, kl_controller="adaptive", kl_horizon=40, save_every=3, sample_every=4,
    sampling=dataclasses.replace(SAMPLING, precision="bfloat16"),
    optim=dataclasses.replace(OPTIM, precision="bfloat16", micro_batch_tokens=200, gradient_checkpointing=True),
)  # fmt: skip
SETTINGS["rounds"] = Rounds(
    rounds=2, comparisons=20, kl_budget=0.5, arena_prompts=len(ARENA), sampling=SAMPLING,
    reward=dataclasses.replace(SETTINGS["reward"], epochs=1.5),
    ppo=dataclasses.replace(SETTINGS["ppo"], steps=5, save_every=2),
)  # fmt: skip


def policy(lora: int | None = None) -> LanguagePolicy:
    """The policy every job starts from, with or without an adapter."""
    plain = tiny_policy(WORLD.corpus(40, SEEDS), seeds=SEEDS, shape=SHAPE)
    return plain if lora is None else with_lora(plain, rank=lora, seeds=SEEDS)


def gold(prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[float]:
    """The hidden utility as a reward function."""
    return WORLD.gold_reward(prompts, completions)


def taste(prompt: Prompt, text: str) -> float:
    """What the simulated annotator likes: gold, and many different letters (gold alone is flat on babble)."""
    return WORLD.gold(prompt, text) + 0.1 * len(set(text))


def comparisons() -> list[Comparison]:
    """Twenty pairs of reviews of which the longer is preferred."""
    texts = [text for _, text in WORLD.demonstrations(40, SEEDS)]
    pairs = zip(PROMPTS[:20], texts[:20], texts[20:], strict=True)
    return [Comparison(p, a, b, p_left=float(len(a) > len(b)), query_id=str(i)) for i, (p, a, b) in enumerate(pairs)]


def reward_model(start: LanguagePolicy) -> RewardModel:
    """A reward model with an opinion, not trained."""
    model = RewardModel.from_policy(start.merged(), seeds=SEEDS, max_length=160)
    model.normalize(model([p.text for p in PROMPTS], ["good"] * len(PROMPTS)))
    return model


def loop(run: Run, settings: Rounds) -> Loop:
    """The outer loop with a simulated annotator."""
    labeler = Oracle(taste, seeds=SEEDS, temperature=0.5, tie_width=0.01)
    return Loop(
        run=run,
        start=policy,
        prompts=PROMPTS,
        arena_prompts=ARENA,
        settings=settings,
        seeds=SEEDS,
        labeler=labeler,
        gold=gold,
    )


def perform(kind: str, folder: Path, settings: Any = None, *, lora: int | None = None, keep: int = 2) -> dict[str, Any]:
    """Do the job of that kind in `folder`, or go on with it, and return its result."""
    settings = settings or SETTINGS[kind]
    with Run.open(folder, kind=kind, settings=settings, quiet=True, keep=keep) as run:
        if not run.finished:
            run.finish(_work(kind, run, settings, lora))
        return run.result


def _work(kind: str, run: Run, settings: Any, lora: int | None) -> dict[str, Any]:
    if kind == "rounds":
        table = loop(run, settings)
        try:
            return table.go().to_json()
        finally:
            table.store.close()
    start = policy(lora)
    if kind == "sft":
        rows = WORLD.demonstrations(24, SEEDS)
        return run_sft(start, encode_demonstrations(start, rows, settings), settings, run, SEEDS)
    if kind == "reward":
        return run_reward(start, comparisons(), settings, SAMPLING, run, SEEDS)
    if kind == "dpo":
        return run_dpo(start, comparisons(), settings, run, SEEDS)
    return run_online(start, PROMPTS, reward_model(start), settings, run, SEEDS, gold)


def longer(kind: str) -> Any:
    """The settings of a job that lasts a few seconds, so that there is something to interrupt."""
    if kind in ("ppo", "grpo"):
        return dataclasses.replace(SETTINGS[kind], steps=40)
    return SETTINGS[kind] if kind == "rounds" else dataclasses.replace(SETTINGS[kind], epochs=40.2)


def main(kind: str, folder: str) -> int:
    """Perform one job as a process of its own."""
    torch.set_num_threads(1)
    reward_model(policy())  # transformers imports a model's code when it is first built
    print("READY", flush=True)
    try:
        perform(kind, Path(folder), longer(kind))
    except BackflipError as problem:
        print(problem, file=sys.stderr)
        return problem.exit_code
    print("DONE", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
