"""Matches from what a run has written already: each generation's answers to the arena's prompts.

    RUN/arena/NAME.jsonl    one sample for each prompt, as `rounds.loop` keeps them

Nothing is generated here. The same sides are drawn as by the loop that wrote the samples, so a match that is filed from here
and later by the loop is one match.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from backflip.arena.games import Games
from backflip.arena.matches import MatchesAdded, MatchStore, add_matches
from backflip.arena.order import generation_order
from backflip.errors import DataError
from backflip.records import Sample
from backflip.runs.atomic import open_regular
from backflip.runs.catalogue import folders
from backflip.seeds import Seeds


@dataclass(frozen=True, slots=True)
class KeptRun:
    """A run with kept samples: its id below the runs folder, its folder, whose samples are there, and the seeds that its
    matches draw sides from."""

    id: str
    folder: Path
    names: tuple[str, ...]
    seeds: Seeds


class Offer(NamedTuple):
    """`n` matches of two policies that could be asked, from the samples of a run."""

    run: str
    a: str
    b: str
    n: int


def kept_runs(root: str | Path) -> list[KeptRun]:
    """The runs below a folder that have kept samples of two generations or more. They are found by looking: no name that
    somebody gives becomes a path, and links are not followed."""
    found = []
    for id, folder in folders(root).items():
        if (folder / "arena").is_symlink():
            continue
        try:
            with os.scandir(folder / "arena") as entries:
                files = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
        except OSError:
            continue
        names = generation_order(name.removesuffix(".jsonl") for name in files if name.endswith(".jsonl") and name.isprintable())
        if len(names) > 1:
            found.append(KeptRun(id, folder, tuple(names), match_seeds(_seed(folder))))
    return found


def match_seeds(seed: int) -> Seeds:
    """The seeds from which the loop of a job with this root seed draws the sides of its matches."""
    return Seeds(seed).child("loop").child("arena")


def read_kept(run: KeptRun, name: str) -> list[Sample]:
    """What a generation wrote, in the order of the prompts. Raises DataError naming the line that cannot be read."""
    path = run.folder / "arena" / f"{name}.jsonl"
    try:
        with open(open_regular(path), encoding="utf-8", newline="\n") as file:
            lines = file.read().split("\n")[:-1]
    except (OSError, ValueError) as problem:
        raise DataError(f"{path} cannot be read: {problem}") from problem
    samples = []
    for number, line in enumerate(lines, 1):
        try:
            samples.append(Sample.from_json(json.loads(line)))
        except (ValueError, TypeError, KeyError) as problem:
            raise DataError(f"{path}, line {number}: this is no sample ({problem})") from problem
    return samples


def offers(games: Games, runs: Iterable[KeptRun], *, home: Path | None = None) -> list[Offer]:
    """What could be asked besides the matches there are, from the samples of `runs`; damaged files offer nothing.

    Different runs call different policies by the same name. So samples are taken only of policies that are new to the arena,
    or whose matches there show these very texts. The run in the folder `home` is the one that the matches are of.
    """
    found = []
    for run in runs:
        written = _fitting(games, run, home)
        names = list(written)
        for i, a in enumerate(names):
            for b in names[i + 1 :]:
                n = len(_unasked(games, written, a, b))
                if n:
                    found.append(Offer(run.id, a, b, n))
    return found


def add_kept(
    store: MatchStore, games: Games, run: KeptRun, pairs: Sequence[tuple[str, str]], *, limit: int, home: Path | None = None
) -> MatchesAdded:
    """File up to `limit` matches of each pair that were not asked yet, from the samples of a run.

    Raises DataError for a policy whose samples the run has not, or whose texts in the arena are others.
    """
    written = _fitting(games, run, home)
    for name in sorted({name for pair in pairs for name in pair}):
        if name not in written:
            raise DataError(f"run {run.id} has no samples of {name!r} that could be matched here")
    queries, same_text = [], 0
    for a, b in dict.fromkeys(pairs):
        rows = _unasked(games, written, a, b)[:limit]
        if rows:
            texts = {name: [written[name][row] for row in rows] for name in (a, b)}
            added = add_matches(store, texts, seeds=run.seeds, purpose=games.purpose)
            queries += added.queries
            same_text += added.same_text
    return MatchesAdded(queries, same_text)


def _fitting(games: Games, run: KeptRun, home: Path | None) -> dict[str, list[Sample]]:
    """The samples of a run's policies that are those which the arena means by their names."""
    own, found = home is not None and run.folder.resolve() == home.resolve(), {}
    for name in run.names:
        try:
            samples = read_kept(run, name)
        except DataError:
            continue
        known = [games.wrote(name, sample.prompt.id, sample.text) for sample in samples]
        if own or (False not in known and (True in known or name not in games.names)):
            found[name] = samples
    return found


def _unasked(games: Games, written: dict[str, list[Sample]], a: str, b: str) -> list[int]:
    """The rows of two policies' samples on which they have not met; none where they answered different prompts."""
    prompts = [sample.prompt for sample in written[a]]
    if prompts != [sample.prompt for sample in written[b]]:
        return []
    met = games.asked(a, b)
    return [row for row, prompt in enumerate(prompts) if prompt.id not in met]


def _seed(folder: Path) -> int:
    try:
        with open(open_regular(folder / "run.json"), encoding="utf-8") as file:
            seed = json.load(file)["settings"]["seed"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return 0
    return seed if isinstance(seed, int) else 0
