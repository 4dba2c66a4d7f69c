"""`python -m tests.feedback.hh_folds`: a reward model from nothing on 1,800 real comparisons, five-fold, beside cheap ones.

Every fold's model is pretrained on the dialogues of the other four folds and fitted to their comparisons, so no dialogue that a
model is measured on was read before. The harmless comparisons of Anthropic's HH-RLHF, a part of the test split.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from backflip.feedback.asking import text_features
from backflip.maths.logistic import newton
from backflip.maths.shares import Share, wilson_share
from backflip.records import Comparison, Prompt
from backflip.seeds import Seeds

WORDS = 1024


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a gzipped file of JSON lines."""
    with gzip.open(path, "rt") as lines:
        return [json.loads(line) for line in lines]


def folds_of(n: int, folds: int) -> list[list[int]]:
    """Row numbers of each fold, dealt out by a fixed shuffle."""
    order = Seeds(0).permutation(n, "folds")
    return [order[k::folds] for k in range(folds)]


def others(folds: Sequence[Sequence[int]], k: int) -> list[int]:
    """The rows of every fold but one."""
    return [i for f, fold in enumerate(folds) if f != k for i in fold]


def bag_of_words(better: Sequence[str], worse: Sequence[str]) -> np.ndarray:
    """A linear model of hashed words: its weights."""
    x = text_features(better, size=WORDS) - text_features(worse, size=WORDS)
    beta, _ = newton(x, np.ones(len(x)), np.ones(len(x)), np.full(WORDS, 1.0))
    return beta


def prefers(beta: np.ndarray, better: Sequence[str], worse: Sequence[str]) -> float:
    """How many pairs the words are right about, half of those where they are of no mind."""
    z = (text_features(better, size=WORDS) - text_features(worse, size=WORDS)) @ beta
    return float((0.5 + 0.5 * np.sign(z)).sum())


def shorter(better: Sequence[str], worse: Sequence[str]) -> Share:
    """How often the preferred text is the shorter one, of pairs that differ in length."""
    pairs = [(len(a), len(b)) for a, b in zip(better, worse, strict=True) if len(a) != len(b)]
    return wilson_share(sum(a < b for a, b in pairs), len(pairs))


def told(name: str, share: Share) -> str:
    """One line of the table."""
    assert share.value is not None
    return f"{name:<34} {share.value:6.1%}  {share.low:.1%} to {share.high:.1%}  of {share.n:,}"


def main() -> None:
    """Measure, and print the table."""
    import tempfile

    import backflip as bf
    from backflip.feedback.readers import read_comparisons
    from backflip.rounds.stages import untrained
    from backflip.settings import Tiny
    from backflip.train.arithmetic import fast_matmul

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[3] / "shared" / "data")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--rows", type=int, help="only so many comparisons, to see that it works")
    given = parser.parse_args()
    comparisons: list[Comparison] = read_comparisons(given.data / "hh_harmless.jsonl.gz")[: given.rows]
    rows = rows_of(given.data / "hh_harmless.jsonl.gz")[: given.rows]
    folds = folds_of(len(rows), given.folds)
    chosen, rejected = ([c.left for c in comparisons], [c.right for c in comparisons])
    hhh = rows_of(given.data / "hhh_eval.jsonl.gz")
    right = words = 0.0
    eval_right, last = 0.0, 0
    size = Tiny(vocabulary=2048, hidden_size=128, layers=2, heads=4, context=256)
    for k, fold in enumerate(folds):
        train = others(folds, k)
        texts = [rows[i][side] for i in train for side in ("chosen", "rejected")]
        with tempfile.TemporaryDirectory() as folder, fast_matmul(None):
            start = untrained(size, [(Prompt(""), text) for text in texts], Seeds(k))
            base = bf.sft(
                start, texts, f"{folder}/base", seed=k, quiet=True, epochs=given.epochs, batch_size=16, max_length=256,
                holdout=0.0, optim={"learning_rate": 2e-3, "warmup_steps": 20}, save_every=10000,
            )  # fmt: skip
            model = bf.fit_reward(
                base.policy, [comparisons[i] for i in train], f"{folder}/reward", seed=k, quiet=True, epochs=1.0, holdout=0.0,
                max_length=256, optim={"learning_rate": 3e-4, "warmup_steps": 10}, save_every=10000,
            )  # fmt: skip
            prompts = [comparisons[i].prompt for i in fold]
            gap = np.array(model(prompts, [chosen[i] for i in fold])) - np.array(model(prompts, [rejected[i] for i in fold]))
            right += float((0.5 + 0.5 * np.sign(gap)).sum())
            said = [
                np.array(model([Prompt("")] * len(hhh), [row[side] for row in hhh]))
                for side in ("text_correct", "text_incorrect")
            ]
            eval_right += float((0.5 + 0.5 * np.sign(said[0] - said[1])).sum()) / given.folds
        beta = bag_of_words([chosen[i] for i in train], [rejected[i] for i in train])
        words += prefers(beta, [chosen[i] for i in fold], [rejected[i] for i in fold])
        last += len(fold)
        print(f"fold {k + 1}: reward model {right / last:.1%}, words {words / last:.1%} so far", flush=True)
    print(told(f"reward model, {given.folds}-fold", wilson_share(right, len(rows))))
    print(told(f"words alone, {given.folds}-fold", wilson_share(words, len(rows))))
    print(told("the shorter reply", shorter(chosen, rejected)))
    print("chance                              50.0%")
    print(told("hhh_eval: these reward models", wilson_share(eval_right, len(hhh))))
    print(told("hhh_eval: the shorter text", shorter([r["text_correct"] for r in hhh], [r["text_incorrect"] for r in hhh])))


if __name__ == "__main__":
    main()
