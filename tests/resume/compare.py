"""What a run left behind, in a form in which two runs are equal or are not: bit for bit, nothing rounded.

Tensors are compared by name, whatever their order in the file; logs and texts by their bytes; a feedback store by its
export. Left out is what must differ between two runs: times, peak memory, locks, what someone asked of it, the debris of a
killed process, and old checkpoints (a run stopped by a signal saved one more).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from backflip.store import Store

NOT_COMPARED = {"timings.jsonl", "MANIFEST.json", "control.json"}
DIFFERENT_EACH_TIME = {"seconds", "peak_rss_mb"}


def snapshot(folder: Path) -> dict[str, str]:
    """A digest for each thing in a run folder; single tensors and single values of JSON files have one of their own."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not _passed_over(path, folder):
            found |= {f"{name}{part}": digest for part, digest in _digests(path)}
    return found


def differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """The names of what differs, what is missing and what is there too much."""
    return sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))


def _passed_over(path: Path, folder: Path) -> bool:
    inside = path.relative_to(folder)
    if path.name in NOT_COMPARED or any(part.startswith(".") for part in inside.parts):
        return True
    if path.name.endswith(("-wal", "-shm")):
        return True
    if "checkpoints" not in inside.parts:
        return False
    checkpoints = folder.joinpath(*inside.parts[: inside.parts.index("checkpoints") + 1])
    newest = max(place.name for place in checkpoints.glob("step-*"))
    return newest not in inside.parts


def _digests(path: Path) -> Iterator[tuple[str, str]]:
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            for name in sorted(file.keys()):
                tensor = file.get_tensor(name)
                bits = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
                yield f": {name}", _sha(f"{tensor.dtype} {tuple(tensor.shape)}".encode() + bits)
    elif path.name in ("state.json", "result.json"):
        values: dict[str, Any] = json.loads(path.read_text())
        for key in values.keys() - DIFFERENT_EACH_TIME:
            yield f": {key}", _sha(json.dumps(values[key], sort_keys=True).encode())
    elif path.suffix == ".db":
        exported = path.with_name(f".{path.name}.export")
        with Store(path, read_only=True) as store:
            store.export_jsonl(exported)
        yield "", _sha(exported.read_bytes())
        exported.unlink()
    else:
        yield "", _sha(path.read_bytes())


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
