"""`python -m tests.resume.kill --kills 20 --seed 0`: kill tiny jobs at random moments, resume, compare bit for bit.

For each kind (sft, reward, ppo, dpo, rounds) the job runs once undisturbed. Then it is started in a fresh folder, killed
with signal 9 at a random moment of its work (every second time: inside the next save after that moment), started again,
and what it leaves is compared with what the undisturbed run left. Exit code 0 when every resumed run is equal, else 1.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]
ONE_THREAD = {
    "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONPATH": str(REPOSITORY / "src"),
}  # fmt: skip
KINDS = ("sft", "reward", "ppo", "grpo", "dpo", "rounds")
PATIENCE = 300.0  # seconds after which a job that neither ends nor saves has hung


class Death(NamedTuple):
    """How a job was killed: after how many seconds of work, whether inside a save, whether after its first one."""

    seconds: float
    saving: bool
    checkpoint: bool


class Trial(NamedTuple):
    """One killed and resumed run, and the names of what differs from the undisturbed one."""

    kind: str
    death: Death
    different: list[str]


def start(kind: str, folder: Path) -> subprocess.Popen[str]:
    """A job as a process of its own, its imports done."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.resume.job", kind, str(folder)],
        cwd=REPOSITORY, env=os.environ | ONE_THREAD, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    if process.stdout.readline() != "READY\n":
        raise RuntimeError(f"the {kind} job did not start: {process.communicate()[1]}")
    return process


def finish(kind: str, folder: Path) -> float:
    """Run a job, or what is left of it, to its end; the seconds of work it took. Raises RuntimeError if it fails."""
    process = start(kind, folder)
    begun = time.monotonic()
    assert process.stdout is not None
    process.stdout.readline()
    seconds = time.monotonic() - begun
    _, errors = process.communicate(timeout=PATIENCE)
    if process.returncode != 0:
        raise RuntimeError(f"the {kind} job in {folder} ended with exit code {process.returncode}: {errors}")
    return seconds


def kill(kind: str, folder: Path, after: float, *, saving: bool) -> Death:
    """Start a job in a fresh folder and kill it `after` so many seconds of work, or inside the next save from then on.

    If it was done by then, or done with the save before the signal came, it is started anew (and killed earlier).
    """
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        process = start(kind, folder)
        begun = time.monotonic()
        while process.poll() is None and time.monotonic() - begun < PATIENCE:
            late = time.monotonic() - begun >= after
            if late and (not saving or _is_saving(folder)):
                break
            time.sleep(0.0005 if late else 0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        death = Death(time.monotonic() - begun, _is_saving(folder), any(folder.rglob("checkpoints/step-*")))
        ended = process.returncode != -signal.SIGKILL or (folder / "result.json").exists()
        if not ended and (death.saving or not saving):
            return death
        after *= 0.9


def _is_saving(folder: Path) -> bool:
    """Whether a checkpoint or a model is half written."""
    return any(folder.rglob(".*.new"))


def trial(kind: str, place: Path, expected: dict[str, str], after: float, *, saving: bool) -> Trial:
    """Kill a job, resume it, compare. The folder of a run that is equal is deleted."""
    from tests.resume.compare import differences, snapshot

    death = kill(kind, place, after, saving=saving)
    finish(kind, place)
    different = differences(expected, snapshot(place))
    if not different:
        shutil.rmtree(place)
    return Trial(kind, death, different)


def campaign(kinds: list[str], kills: int, seed: int, place: Path) -> list[Trial]:
    """`kills` trials spread evenly over the kinds and over the duration of each."""
    from backflip.seeds import Seeds
    from tests.resume.compare import snapshot

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        durations = list(pool.map(lambda kind: finish(kind, place / kind), kinds))
        expected = {kind: snapshot(place / kind) for kind in kinds}
        for kind, seconds in zip(kinds, durations, strict=True):
            print(f"{kind:7} undisturbed: {seconds:4.1f} s of work, {len(expected[kind])} things compared", flush=True)
        waiting = []
        for number in range(kills):
            k, turn = number % len(kinds), number // len(kinds)
            turns = len(range(k, kills, len(kinds)))
            share = (turn + float(Seeds(seed).numpy("kill", kinds[k], turn).uniform())) / turns
            folder = place / f"{kinds[k]}-{turn}"
            waiting.append(pool.submit(trial, kinds[k], folder, expected[kinds[k]], share * durations[k], saving=turn % 2 == 1))
        done = []
        for future in waiting:
            done.append(future.result())
            _tell(done[-1])
        return done


def _tell(trial: Trial) -> None:
    where = "inside a save" if trial.death.saving else "between saves"
    since = "from a checkpoint" if trial.death.checkpoint else "from the start"
    verdict = f"DIFFERS in {', '.join(trial.different[:5])}" if trial.different else "bit-equal"
    print(f"{trial.kind:7} killed after {trial.death.seconds:4.1f} s, {where}; resumed {since}: {verdict}", flush=True)


def main(argv: list[str] | None = None) -> int:
    """Read the flags, run the campaign, print the count."""
    parser = argparse.ArgumentParser(prog="python -m tests.resume.kill", description="Kill, resume, compare.")
    parser.add_argument("--kills", type=int, default=20, help="How many runs to kill.")
    parser.add_argument("--seed", type=int, default=0, help="Decides the moments.")
    parser.add_argument("--only", choices=KINDS, help="Only this kind of job.")
    given = parser.parse_args(argv)
    place = Path(tempfile.mkdtemp(prefix="backflip-kill-"))
    trials = campaign([given.only] if given.only else list(KINDS), given.kills, given.seed, place)
    differ = sum(bool(trial.different) for trial in trials)
    print(f"{len(trials)} kills, {len(trials) - differ} resumed runs bit-equal, {differ} differ")
    if differ:
        print(f"the runs that differ are kept in {place}")
        return 1
    shutil.rmtree(place)
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(REPOSITORY / "src"))
    sys.exit(main())
