"""Trains for an hour with evaluations and checkpoints, and watches memory and open files; then
trains the same hour again, interrupted, and compares the ends.

    python scripts/soak.py [--minutes=60] [--interruptions=30] [--model_dir=runs/soak] [FLAGS]

FLAGS are those of `switchx train`, as --gin.PREPARED_DIR=... Memory is flat where the second half
of the run needs at most 5 % more than the end of the first quarter, and open files where it has
none more. Leaves soak.png. Exit status 1 where something grew or the ends differ.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import matplotlib
import numpy as np
import psutil
from fault_runs import Attempt, differences, statuses

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
SECONDS = 2.0  # between samples
PERIODS = ["--gin.LOG_PERIOD=50", "--gin.EVAL_PERIOD=500", "--gin.CHECKPOINT_PERIOD=250"]
MORE_MEMORY = 1.05


def flags(steps: int, more: list[str]) -> list[str]:
    """The flags of the run, beside those of all runs of faults."""
    return [*PERIODS, f"--gin.TRAIN_STEPS={steps}", *more]


def measured_steps(folder: Path, minutes: float, more: list[str]) -> int:
    """Steps that take so many minutes, by short runs; the first one fills the compile cache."""
    directory, times = folder / "measured", []
    for steps in (500, 500, 1500):
        shutil.rmtree(directory, ignore_errors=True)
        attempt = Attempt(directory, *flags(steps, more))
        if attempt.end():
            sys.exit(attempt.log.read_text())
        times.append(time.monotonic() - attempt.began)
    steps = round(minutes * 60 / (times[2] - times[1]) * 1000)
    return max(500, steps // 500 * 500)


def watched(directory: Path, steps: int, more: list[str]) -> np.ndarray:
    """Runs to the end; returns rows of seconds, resident megabytes and open files."""
    attempt = Attempt(directory, *flags(steps, more))
    samples = []
    while attempt.process.poll() is None:
        try:
            process = psutil.Process(attempt.process.pid)
            memory, files = process.memory_info().rss / 1e6, process.num_fds()
            samples.append((time.monotonic() - attempt.began, memory, files))
        except psutil.Error:
            pass
        time.sleep(SECONDS)
    if attempt.end():
        sys.exit(attempt.log.read_text())
    return np.array(samples)


def growth(samples: np.ndarray) -> tuple[float, int]:
    """Memory of the second half over that at the end of the first quarter, and files more."""
    quarter, half = len(samples) // 4, len(samples) // 2
    early = samples[max(quarter - 15, 0) : quarter + 15]
    memory = np.median(samples[half:, 1]) / np.median(early[:, 1])
    files = np.median(samples[half:, 2]) - np.median(early[:, 2])
    return float(memory), int(files)


def interrupted(
    directory: Path, steps: int, life: float, times: int, more: list[str], seed: int
) -> int:
    """Runs to the end, stopped `times` times at random moments; returns the processes started."""
    chance, starts = random.Random(seed), 0
    while True:
        attempt = Attempt(directory, *flags(steps, more))
        starts += 1
        number, phase = chance.choice(SIGNALS), None
        if starts <= times:
            phase = attempt.send_after(chance.uniform(0, 2 * life / times), number)
        status = attempt.end()
        if status not in statuses(number, phase):
            sys.exit(f"exit status {status}: {attempt.log.read_text()[-2000:]}")
        if status == 0:
            return starts


def draw(samples: np.ndarray, path: Path) -> None:
    """Memory and open files over time."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 1, sharex=True, figsize=(8, 5), layout="constrained")
    for axis, column, name in zip(axes, (1, 2), ("resident memory, MB", "open files"), strict=True):
        axis.plot(samples[:, 0] / 60, samples[:, column])
        axis.set_ylabel(name)
        axis.set_ylim(bottom=0)
    axes[1].set_xlabel("minutes")
    figure.savefig(path, dpi=120)


def main() -> int:
    """Prints what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--interruptions", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model_dir", default="runs/soak", help="emptied first")
    args, more = parser.parse_known_args()
    os.environ["JAX_PLATFORMS"] = "cpu"  # also of this process, which compares
    folder = Path(args.model_dir).expanduser()
    shutil.rmtree(folder, ignore_errors=True)
    steps = measured_steps(folder, args.minutes, more)
    print(f"{steps:,} steps for some {args.minutes:g} minutes", flush=True)
    samples = watched(folder / "undisturbed", steps, more)
    draw(samples, folder / "soak.png")
    memory, files = growth(samples)
    life = samples[-1, 0]
    print(
        f"{life / 60:.1f} minutes: memory {samples[:, 1].max():,.0f} MB at most, "
        f"{memory - 1:+.1%} from the first quarter to the second half; open files "
        f"{samples[:, 2].max():.0f} at most, {files:+d}; picture {folder / 'soak.png'}",
        flush=True,
    )
    starts = interrupted(folder / "again", steps, life, args.interruptions, more, args.seed)
    wrong = differences(folder / "again", folder / "undisturbed", steps)
    print(f"again, stopped {starts - 1} times: " + (f"WRONG: {wrong}" if wrong else "the same end"))
    return 1 if wrong or memory > MORE_MEMORY or files > 0 else 0


if __name__ == "__main__":
    sys.exit(main())
