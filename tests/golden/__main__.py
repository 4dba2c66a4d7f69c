"""`python -m tests.golden FILE...`: check golden files against `backflip.maths` and print a count.

Exit code 0 when every case passes, 1 when one fails, 2 when a file cannot be used.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main(paths: list[str]) -> int:
    """Check the files, print the failures and the count, and return the exit code."""
    from tests.golden import cases

    if not paths:
        print("usage: python -m tests.golden FILE...", file=sys.stderr)
        return 2
    outcomes: list[cases.Outcome] = []
    for path in paths:
        try:
            found = list(cases.check_all(*cases.read(path)))
        except cases.GoldenFileError as problem:
            print(f"golden: {problem}", file=sys.stderr)
            return 2
        outcomes += found
        for outcome in found:
            if outcome.problem:
                print(f"FAILED {path}: {outcome.name}: {outcome.problem}")
    failed = sum(bool(outcome.problem) for outcome in outcomes)
    print(f"{len(outcomes) - failed} passed, {failed} failed")
    print(f"largest error {max(outcome.error for outcome in outcomes):.3g} (tolerance {cases.TOLERANCE:g})")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))
    sys.exit(main(sys.argv[1:]))
