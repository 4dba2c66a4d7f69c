"""`python -m tests.feedback.figures`: what real people's answers say, in the numbers that docs/feedback.md tells."""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from tests.feedback.hh_folds import bag_of_words, folds_of, others, prefers, rows_of, shorter, told

from backflip.feedback.readers import read_comparisons
from backflip.feedback.report import Overview, overview
from backflip.feedback.votes import read_votes
from backflip.maths.mixtures import components
from backflip.maths.noisy_bradley_terry import noisy_bradley_terry
from backflip.maths.ratings import Votes, bradley_terry_ratings
from backflip.maths.shares import Paired, paired, wilson_share
from backflip.seeds import Seeds
from backflip.store import Store
from backflip.store.projects import Projects

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def ranks(values: Any) -> np.ndarray:
    """Places from 0 for the highest value."""
    return np.argsort(np.argsort(-np.asarray(values, dtype=float)))


def arena(data: Path) -> dict[str, Any]:
    """Our ratings of the 59 models of LLMFAO beside those of other people's algorithms: rank correlation and rank differences."""
    with (data / "llmfao-golden.csv").open() as file:
        golden = list(csv.DictReader(file))
    with (data / "llmfao.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = sorted({row["item"] for row in golden})
    scores = {(row["algorithm"], row["item"]): float(row["score"]) for row in golden}
    place = {name: i for i, name in enumerate(names)}
    left, right = (np.array([place[row[side]] for row in rows]) for side in ("left", "right"))
    p = np.array([{"left": 1.0, "right": 0.0, "tie": 0.5}[row["winner"]] for row in rows])
    ours = bradley_terry_ratings(Votes(left, right, p, np.zeros(len(rows), dtype=int), len(names)).win_matrix())
    assert ours.elo_M is not None
    workers = {name: i for i, name in enumerate(sorted({row["worker"] for row in rows}))}
    noisy = noisy_bradley_terry(
        left, right, [workers[row["worker"]] for row in rows], p, n_items=len(names), n_raters=len(workers)
    )  # fmt: skip
    own = ranks(ours.elo_M)
    theirs = {each: ranks([scores[each, name] for name in names]) for each in dict.fromkeys(row["algorithm"] for row in golden)}
    theirs["noisy Bradley–Terry, ours"] = ranks(noisy.theta_I)
    return {
        "regularised": ours.regularised,
        "noisy": noisy,
        "names": names,
        "ranks": own,
        "correlation": {each: float(np.corrcoef(own, other)[0, 1]) for each, other in theirs.items()},
        "largest": {each: int(np.abs(own - other).max()) for each, other in theirs.items()},
    }


def arena_overview(data: Path, folder: Path) -> Overview:
    """The same answers as a store, told whole."""
    votes = read_votes(data / "llmfao.csv", purpose="arena", sides_are_policies=True)
    with Store(folder / "arena.db") as store:
        Projects(store).add_entries(votes.entries, by="figures")
        return overview(store, purpose="arena", seeds=Seeds(0))


def sliders(data: Path) -> dict[str, Any]:
    """How many components explain held-out slider labels of the 496 items best, and how often luck alone would say so."""
    with (data / "nli_variation.jsonl").open() as file:
        rows = [json.loads(line) for line in file]
    values = [[v for v in row["normed-labels"] if v is not None and v == v] for row in rows]
    x = np.full((len(rows), max(map(len, values))), np.nan)
    for place, row in zip(x, values, strict=True):
        place[: len(row)] = row
    found = components(x, rng=np.random.default_rng(0))
    rng = np.random.default_rng(1)
    mean, sd = np.nanmean(x, axis=1, keepdims=True), np.nanstd(x, axis=1, keepdims=True)
    alone = components(np.where(np.isnan(x), np.nan, mean + sd * rng.normal(size=x.shape)), rng=np.random.default_rng(2))
    best = Counter(found.best_B.tolist())
    n = len(rows)
    return {
        "tasks": sorted({row["task"] for row in rows}),
        "best": {k: wilson_share(best[k], n) for k in (1, 2, 3)},
        "bimodal": wilson_share(int(((found.best_B > 1) & (found.second_B > 0.2)).sum()), n),
        "several by luck": wilson_share(int((alone.best_B > 1).sum()), n),
        "bimodal by luck": wilson_share(int(((alone.best_B > 1) & (alone.second_B > 0.2)).sum()), n),
    }


def harmless(data: Path) -> dict[str, Any]:
    """Words alone on the harmless comparisons, five-fold, and on the HHH evaluation, each beside length."""
    comparisons = read_comparisons(data / "hh_harmless.jsonl.gz")
    chosen, rejected = [c.left for c in comparisons], [c.right for c in comparisons]
    folds, right = folds_of(len(comparisons), 5), 0.0
    for k, fold in enumerate(folds):
        train = others(folds, k)
        beta = bag_of_words([chosen[i] for i in train], [rejected[i] for i in train])
        right += prefers(beta, [chosen[i] for i in fold], [rejected[i] for i in fold])
    rows = rows_of(data / "hhh_eval.jsonl.gz")
    good, bad = [row["text_correct"] for row in rows], [row["text_incorrect"] for row in rows]
    return {
        "hh: words alone, five-fold": wilson_share(right, len(comparisons)),
        "hh: the shorter reply": shorter(chosen, rejected),
        "hhh: words of all hh": wilson_share(prefers(bag_of_words(chosen, rejected), good, bad), len(rows)),
        "hhh: the shorter text": shorter(good, bad),
    }


def verifiers(data: Path) -> dict[str, Paired]:
    """One sample, or the best of many by a verifier, on the 1,319 problems of GSM8K (Cobbe et al. 2021)."""
    rows = rows_of(data / "gsm8k_model_solutions.jsonl.gz")
    right = {name: [int(row[name]["is_correct"]) for row in rows] for name in rows[0] if isinstance(rows[0][name], dict)}
    return {
        "6B alone, with a verifier": paired(right["6b_finetuning"], right["6b_verification"]),
        "175B alone, with a verifier": paired(right["175b_finetuning"], right["175b_verification"]),
        "175B alone, 6B with a verifier": paired(right["175b_finetuning"], right["6b_verification"]),
    }


def main() -> None:
    """Print all of it."""
    from backflip.cli.feedback import figure_rows

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    data = parser.parse_args().data
    found = arena(data)
    print("LLMFAO: rank correlation with our Bradley–Terry, largest difference of rank")
    for name, value in found["correlation"].items():
        print(f"  {name:<28} {value:6.3f}  {found['largest'][name]}")
    with tempfile.TemporaryDirectory() as folder:
        for row in figure_rows(arena_overview(data, Path(folder))):
            print("  " + "  ".join(row))
    for name, value in sliders(data).items():
        for k, share in value.items() if isinstance(value, dict) else [("", value)]:
            print(f"sliders, {name} {k}: {share}")
    for name, share in harmless(data).items():
        print(told(name, share))
    for name, pair in verifiers(data).items():
        print(
            f"{name}: {pair.first.value:.1%} ({pair.first.low:.1%} to {pair.first.high:.1%}) → {pair.second.value:.1%} "
            f"({pair.second.low:.1%} to {pair.second.high:.1%}); gained {pair.gained}, lost {pair.lost}; "
            f"{pair.difference:+.1%} ({pair.low:+.1%} to {pair.high:+.1%}), p = {pair.p:.1g}"
        )


if __name__ == "__main__":
    main()
