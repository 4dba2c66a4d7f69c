"""Which library multiplies matrices in a run: measured when it begins, written down, the same when it is resumed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

from backflip.errors import ConfigError, DataError
from backflip.maths import matmul
from backflip.runs import Run
from backflip.runs.atomic import write_atomic
from backflip.runs.logs import read_object
from backflip.runs.run import MATMUL as NAME


@contextlib.contextmanager
def fast_matmul(run: Run | None) -> Iterator[None]:
    """Float32 products inside the block are made as this run's folder says (see `maths.matmul`).

    The file `matmul.json` says which one and what was measured; a run inside another follows the outer one. Without a run,
    where nothing is resumed, the decision is made and not written down. Raises ConfigError when the environment variable
    names no library.
    """
    if matmul.decided():
        yield
        return
    if run is None:
        choice, upright = _choice(matmul.measure())
    else:
        path = run.folder / NAME
        if not path.exists():
            rates = matmul.measure()
            chosen = dict(zip(("choice", "upright"), _choice(rates), strict=True))
            write_atomic(path, json.dumps(chosen | rates._asdict(), indent=1) + "\n")
        choice, upright = _chosen(run)
    with matmul.use(choice, upright=upright):
        yield


def _choice(rates: matmul.Rates) -> tuple[matmul.Choice, int]:
    try:
        choice = matmul.choose(rates)
        upright = matmul.upright_rows(choice)
        matmul.trim()
        return choice, upright
    except ValueError as problem:
        raise ConfigError(str(problem)) from problem


def _chosen(run: Run) -> tuple[matmul.Choice, int]:
    found = read_object(run.folder / NAME)
    upright = found.get("upright", 0)  # which older versions did not write
    if isinstance(upright, int):
        if found.get("choice") == "stock":
            return "stock", upright
        if found.get("choice") == "onednn":
            return "onednn", upright
    raise DataError(f"{run.folder / NAME} names no library; delete the file to measure again")
