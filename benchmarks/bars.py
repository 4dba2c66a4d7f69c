"""What the figures must reach, and whether they do."""

from __future__ import annotations

from typing import Any, NamedTuple

from cpu import PLAN
from worker import QUIET

GENERATION = 2.0
GROUPED = {"XS": 2.6, "S": 3.0, "M": 3.5}
SAME_PRECISION = 2.0
OFFLINE = 1.5
FLOORS = {
    "update/M/fp32": 0.60, "update/M/bf16": 0.45,
    **{f"generate-64/{size}/{precision}": 0.65 for size in ("S", "M") for precision in ("fp32", "bf16")},
}  # fmt: skip
MEMORY = 0.60


class Verdict(NamedTuple):
    """A figure and its bar; `value` is None where nothing was measured."""

    key: str
    value: float | None
    bar: float
    at_most: bool = False
    doubtful: bool = False

    @property
    def met(self) -> bool:
        """Whether it was measured and the bar is reached."""
        return self.value is not None and (self.value <= self.bar if self.at_most else self.value >= self.bar)


def ratio_bar(key: str) -> float | None:
    """How many times as fast as the peer a job/size/setting must be; None where nothing was promised."""
    job, size, setting = key.split("/")
    if job == "generate-64":
        return GENERATION if size in ("S", "M") else None
    if job in ("grpo", "rloo"):
        return GROUPED[size] if setting == "default" else SAME_PRECISION if setting in ("fp32", "bf16") else None
    if setting not in ("default", "fp32"):
        return None
    if job == "ppo":
        return 2.5 if setting == "default" else None
    return OFFLINE if job in ("dpo", "reward", "sft") else None


def comparable(key: str) -> bool:
    """Whether both sides' memory can be compared: in "default" only the peer recomputes activations, and generating in bf16 the
    peer holds bf16 weights alone, ours them and the float32 ones it goes on training."""
    job, _, setting = key.split("/")
    return setting != "default" and not (job.startswith("generate") and setting == "bf16")


def planned() -> list[str]:
    """Every job/size/setting that is measured when nothing else is asked for, in order."""
    return [f"{job}/{size}/{setting}" for size, jobs in PLAN.items() for job, own in jobs.items() for setting in own]


def in_order(ratios: dict[str, Any]) -> dict[str, Any]:
    """The measured ones in the order of the plan, others after them."""
    return {key: ratios[key] for key in dict.fromkeys([*planned(), *ratios]) if key in ratios}


def verdicts(results: dict[str, Any]) -> list[Verdict]:
    """Every bar: speed, floors, memory beside the peer's, memory beside the plain way."""
    ratios, floors, details = (results.get(name, {}) for name in ("ratios", "floor", "floor_details"))
    found = []
    for key in dict.fromkeys([*planned(), *ratios]):
        row, bar = ratios.get(key), ratio_bar(key)
        if bar is not None:
            found.append(Verdict(key, row and row["median"], bar, doubtful=bool(row) and row["foreign"] > QUIET))
    for key, bar in FLOORS.items():
        foreign = details.get(key, {}).get("foreign", 0.0)
        found.append(Verdict(f"roofline of {key}", floors.get(key), bar, doubtful=foreign > QUIET))
    for key, row in ratios.items():
        if comparable(key):
            found.append(Verdict(f"memory of {key}", row["ours_mb"], row["peer_mb"], at_most=True))
    for key, row in results.get("memory", {}).items():
        found.append(Verdict(f"memory of {key}, chunked ÷ naive", row["ratio"], MEMORY, at_most=True))
    return found
