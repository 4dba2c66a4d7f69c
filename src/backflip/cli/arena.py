"""`backflip arena STORE`: who stands where; with `--policies` and `--prompts`, first add blind matches between them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from backflip.config import add_flags, from_flags
from backflip.errors import UserError
from backflip.settings import Sampling

if TYPE_CHECKING:
    from backflip.arena import Standings
    from backflip.records import Prompt, Sample
    from backflip.seeds import Seeds
    from backflip.store import Store

HELP = "Compare policies: blind matches, ratings with intervals, win rates."
SAMPLING = Sampling(temperature=1.0, max_new_tokens=128)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The store, the anchor, what to add matches from, and how to sample."""
    parser.add_argument("store", metavar="STORE", help="The feedback store, such as feedback.db.")
    parser.add_argument("--anchor", metavar="NAME", help="The policy that stands at 1000; without it their mean does.")
    parser.add_argument(
        "--policies",
        nargs="+",
        metavar="POLICY",
        help="Add matches between these model folders or names; NAME=FOLDER says what to call one.",
    )
    parser.add_argument("--prompts", metavar="FILE", help="The prompts that every policy of --policies answers once.")
    parser.add_argument("--ask", action="store_true", help="Answer open questions here before the standings are shown.")
    parser.add_argument("--resamples", type=int, default=1000, metavar="N", help="Bootstrap resamples. [1000]")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="Root of all randomness. [0]")
    add_flags(parser, Sampling, SAMPLING)


def run(args: argparse.Namespace) -> int:
    """Add matches where asked to, have them answered where asked to, print the standings."""
    from backflip.arena import standings
    from backflip.seeds import Seeds
    from backflip.store import Store

    if bool(args.policies) != bool(args.prompts):
        raise UserError("--policies and --prompts go together: which models should answer, and what")
    if args.resamples < 1:
        raise UserError(f"--resamples must be at least 1, not {args.resamples}")
    seeds = Seeds(args.seed)
    if args.policies:
        samples = _sample(args, seeds)
        with Store(args.store) as store:
            _add(store, samples, seeds)
    if args.ask:
        from backflip.cli import main

        code = main.load("label").run(main.parser("label").read([args.store]))
        if code:
            return int(code)
    with Store(args.store, read_only=True) as store:
        table = standings(store, seeds=seeds, anchor=args.anchor, resamples=args.resamples)
    _show(table)
    return 0


def policy_names(given: list[str]) -> dict[str, str]:
    """Name → folder of each policy: the NAME of NAME=FOLDER, else as much of the path's end as tells them apart.

    Raises UserError for fewer than two, or two of one name.
    """
    split = [word.partition("=") for word in given]
    named = [
        (name, path) if sign and "/" not in name else ("", word) for word, (name, sign, path) in zip(given, split, strict=True)
    ]
    tails = [path.rstrip("/").split("/") for name, path in named if not name]
    depth = 1
    while len({tuple(t[-depth:]) for t in tails}) < len(tails) and depth < max(map(len, tails)):
        depth += 1
    names = [name or "/".join(path.rstrip("/").split("/")[-depth:]) for name, path in named]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"two policies are called {twice[0]!r}; tell them apart with NAME=FOLDER")
    if len(names) < 2:
        raise UserError(f"--policies needs at least two models to compare, not only {names[0]!r}")
    return dict(zip(names, (path for _, path in named), strict=True))


def _sample(args: argparse.Namespace, seeds: Seeds) -> dict[str, list[Sample]]:
    """One sample of every policy for every prompt; one model is in memory at a time."""
    names = policy_names(args.policies)
    settings = from_flags(Sampling, args, base=SAMPLING)

    from backflip.feedback.readers import read_prompts

    prompts = read_prompts(args.prompts)
    return {name: _answers(name, path, prompts, seeds.child("arena", name), settings) for name, path in names.items()}


def _answers(name: str, path: str, prompts: list[Prompt], seeds: Seeds, settings: Sampling) -> list[Sample]:
    from backflip.policies import load_policy
    from backflip.rollout import generate_samples
    from backflip.train.arithmetic import fast_matmul

    policy = load_policy(path, name=name)
    with fast_matmul(None):
        return [group[0] for group in generate_samples(policy, prompts, n=1, seeds=seeds, settings=settings)]


def _add(store: Store, samples: dict[str, list[Sample]], seeds: Seeds) -> None:
    """File the matches and say how many wait for an answer."""
    from backflip.arena import add_matches

    added = add_matches(store, samples, seeds=seeds)
    same = f"; {added.same_text} more had identical texts and count as ties" if added.same_text else ""
    print(f"{len(added.queries)} blind matches in the store{same}\n")


def _show(standings: Standings) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from backflip.arena.table import RATING_HEADER, rating_rows, win_rate_rows

    console = Console(highlight=False)
    if standings.ratings:
        matrix = win_rate_rows(standings)
        for title, header, rows in (
            ("Ratings", RATING_HEADER, rating_rows(standings)),
            ("Win rates: row against column", matrix[0], matrix[1:]),
        ):
            table = Table(title=title, title_justify="left")
            for column in header:
                right = column in ("rating", "95 % interval", "votes")
                table.add_column(Text(column), justify="right" if right else "left", overflow="fold")
            for row in rows:
                table.add_row(*map(Text, row))
            console.print(table)
    for note in standings.notes:
        console.print(Text(f"note: {note}"))
