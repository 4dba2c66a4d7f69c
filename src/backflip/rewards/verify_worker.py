"""The process in which math-verify decides: JSON lines in, JSON lines out. Started by `verifier`, as a script.

It is a process of its own because symbolic algebra on what a model wrote can take for ever, or all the memory: inside, each
of its steps has a time limit of its own; outside, somebody waits who can end it. It imports nothing of backflip, so that it
starts without PyTorch.

    in    {"gold": "\\frac{1}{2}", "answer": "0.5"}
    out   true, false, or null: it could not decide
"""

from __future__ import annotations

import json
import os
import sys

MEMORY = 4 << 30


def decide(gold: str, answer: str, *, seconds: int) -> bool | None:
    """Whether an answer equals the gold one as mathematics; None when one of the two is not understood.

    The whole answer is read as one LaTeX expression, so that no part of a longer text can be picked out of it.
    """
    from math_verify import LatexExtractionConfig, parse, verify

    form = [LatexExtractionConfig(try_extract_without_anchor=False, boxed_match_priority=0)]
    texts = (f"\\boxed{{{text}}}" for text in (gold, answer))
    parsed = [parse(text, form, fallback_mode="no_fallback", parsing_timeout=seconds) for text in texts]
    return verify(parsed[0], parsed[1], timeout_seconds=seconds) if all(parsed) else None


def main() -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not stand among the answers
    seconds = int(sys.argv[1])
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    decide("1", "1", seconds=seconds)  # the first one imports everything
    print("true", file=answers, flush=True)
    for line in sys.stdin:
        try:
            verdict = decide(**json.loads(line), seconds=seconds)
        except Exception:  # a dozen kinds, of three libraries; RecursionError and MemoryError among them
            verdict = None
        print(json.dumps(verdict), file=answers, flush=True)


if __name__ == "__main__":
    main()
