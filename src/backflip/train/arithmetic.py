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
    """Float32 products inside the block go to the library that this run's folder names (see `maths.matmul`).

    The file `matmul.json` says which one and what was measured; a run inside another follows the outer one. Without a run,
    where nothing is resumed, the decision is made and not written down. Raises ConfigError when the environment variable
    names no library.
    """
    if matmul.enabled():
        yield
        return
    if run is None:
        with matmul.use(_choice(matmul.measure())):
            yield
        return
    path = run.folder / NAME
    if not path.exists():
        rates = matmul.measure()
        write_atomic(path, json.dumps({"choice": _choice(rates)} | rates._asdict(), indent=1) + "\n")
    with matmul.use(_chosen(run)):
        yield


def _choice(rates: matmul.Rates) -> matmul.Choice:
    try:
        return matmul.choose(rates)
    except ValueError as problem:
        raise ConfigError(str(problem)) from problem


def _chosen(run: Run) -> matmul.Choice:
    choice = read_object(run.folder / NAME).get("choice")
    if choice == "stock":
        return "stock"
    if choice == "onednn":
        return "onednn"
    raise DataError(f"{run.folder / NAME} names no library; delete the file to measure again")
