"""How the conductor and a worker talk: "step" on standard input, a line of JSON on standard output.

Stands on the standard library alone, for the peers' environments have nothing of ours.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def _cuda() -> Any:
    """torch.cuda in a worker that uses it."""
    torch: Any = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None


def _peak_mb() -> float:
    """The most memory this process has had, the GPU's where it uses one. Not getrusage, which goes on counting from the process
    it was forked from."""
    cuda = _cuda()
    if cuda is not None:
        return float(cuda.max_memory_allocated()) / 2**20
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


class Turns:
    """The worker's side: called once between any two steps of a training loop, it reports the step that is over and waits to
    be told to go on."""

    def __init__(self) -> None:
        # Whatever libraries print must not stand between the lines of the conversation.
        self.out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self.begun = False
        # Seconds of what was done ahead for all steps together, as far as it falls on one of them.
        self.ahead = 0.0

    def __call__(self, **facts: float) -> None:
        """Report the step since the last call (the first call reports that everything is ready), then wait."""
        cuda = _cuda()
        if cuda is not None:
            cuda.synchronize()  # a step is over when its work is done, not when it is asked for
        now = time.perf_counter()
        row: dict[str, float] = dict(facts)
        if self.begun:
            row["seconds"] = now - self.start + self.ahead
            row["peak_mb"] = _peak_mb()
        self.out.write(json.dumps(row) + "\n")
        self.out.flush()
        if sys.stdin.readline().strip() != "step":
            self.out.close()
            os._exit(0)  # the trainers in between know no other way to stop in the middle
        self.begun = True
        self.start = time.perf_counter()


# What both sides are asked to do: rows (dpo and reward: pairs) of a step, prompts of mixed length, completions that end at
# their stop token or here, the same reward, one update of a step's rows (ppo: `PPO_EPOCHS`).
BATCH = {"grpo": 64, "rloo": 64, "ppo": 64, "sft": 32, "dpo": 16, "reward": 16}
GROUP = 8
# Of the pairs, how many DPO learns from: the share of the reference's work that falls on a step does not depend on it.
DPO_PAIRS = 256
RESPONSE = 64
TEMPERATURE = 1.0
PPO_EPOCHS = 4
LEARNING_RATE = 1e-6
# The weight of the KL penalty, above 0 so that the reference has to read everything too.
BETA = {"grpo": 0.04, "rloo": 0.05}


def even_share(prompts: list[str], completions: list[str], **columns: list[object]) -> list[float]:
    """A reward that costs next to nothing and differs within a group: the share of words with an even number."""
    words = [text.split() for text in completions]
    return [sum(word[-1] in "02468" for word in row) / max(1, len(row)) for row in words]
