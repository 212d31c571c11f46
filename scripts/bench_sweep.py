#!/usr/bin/env python
"""Times what points of equal shapes cost beside their training, one after the other in one process.

Twenty toy points (configs/models/tiny_switch.gin, 16 sequences of 32 + 14 tokens) that differ in
seed, learning rate, warm-up and length, on the embedded corpus, prepared once before. Overhead is
all of a point but its steps and its evaluations. Seconds depend on what else the machine does; the
share of the first point's overhead that a later one has does so less.

    python scripts/bench_sweep.py
    python scripts/bench_sweep.py --points 5 --prepared_dir /data/python_docs
"""

import argparse
import contextlib
import functools
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

TASK = {
    "MIXTURE_OR_TASK_NAME": "python_docs_span_corruption",
    "TASK_FEATURE_LENGTHS": {"inputs": 32, "targets": 14},
}
TOY = {
    **TASK,
    "BATCH_SIZE": 16,
    "ENCODER_GROUP_SIZE": 128,
    "DECODER_GROUP_SIZE": 56,
    "SCHEDULE": "wsd",
    "EVAL_STEPS": 2,
    "EVAL_PERIOD": 20,
    "CHECKPOINT_PERIOD": 20,
    "LOG_PERIOD": 10,
}
MODEL = "configs/models/tiny_switch.gin"
TRAINING = ("steps", "evaluations")  # all else is overhead


class Clock:
    """Seconds by part; what is measured within another part counts as the inner one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._running: list[str] = []
        self._since = 0.0
        self.first_step: float | None = None

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        self._turn()
        self._running.append(name)
        try:
            yield
        finally:
            self._turn()
            self._running.pop()

    def _turn(self) -> None:
        now = time.monotonic()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now

    def measure(self, owner: Any, name: str, part: str) -> None:
        """From now on a function's calls count as a part."""
        function = getattr(owner, name)

        @functools.wraps(function)
        def measured(*args: Any, **kwargs: Any) -> Any:
            with self.part(part):
                return function(*args, **kwargs)

        setattr(owner, name, measured)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--prepared_dir", help="of such rows; made for the time being without it")
    args = parser.parse_args()
    os.environ["JAX_PLATFORMS"], os.environ["MPLBACKEND"] = "cpu", "agg"
    from switchx.cli.environment import prepare_compile_cache

    prepare_compile_cache()
    with tempfile.TemporaryDirectory() as scratch:
        prepared = args.prepared_dir or prepare(f"{scratch}/prepared")
        clocks, memory = [], []
        for number in range(args.points):
            clocks.append(measured(number, prepared, scratch))
            memory.append(resident())
            print(f"point {number}: {line(clocks[-1])}, {memory[-1]:,.0f} MB", flush=True)
    show(clocks)
    print(f"memory grew by {memory[-1] - memory[len(memory) // 2]:,.0f} MB in the second half")
    print(f"TensorFlow was {'' if 'tensorflow' in sys.modules else 'not '}imported")


def prepare(directory: str) -> str:
    flags = [f"--gin.{name}={value!r}" for name, value in TASK.items()]
    command = [sys.executable, "-m", "switchx.cli.main", "data", "prepare", f"--gin_file={MODEL}"]
    subprocess.run([*command, f"--gin.PREPARED_DIR={directory!r}", *flags], check=True)
    return directory


def measured(number: int, prepared: str, scratch: str) -> Clock:
    """Trains one point, and says where its time went."""
    clock = Clock()
    with clock.part("other"), contextlib.redirect_stderr(io.StringIO()):
        with clock.part("imports, settings, checks"):
            from switchx.api import configure, metric_writers, train_run

            settings = configure(
                [MODEL],
                f"{scratch}/{number}",
                PREPARED_DIR=prepared,
                SEED=number,
                LEARNING_RATE=0.01 * (1 + number % 5),
                WARMUP_STEPS=2 + number % 3,
                TRAIN_STEPS=40 + number,
                **TOY,
            )
        with watched(clock), metric_writers(settings) as writers:
            train_run(settings, writers=writers)
    return clock


@contextlib.contextmanager
def watched(clock: Clock) -> Iterator[None]:
    with clock.part("imports, settings, checks"):
        from switchx.evaluation import losses
        from switchx.reports import pictures
        from switchx.training import log, loop, run, state
        from switchx.training.checkpoints import checkpoints
    parts: list[tuple[Any, str, str]] = [
        (run, "compile_train_step", "trace and compile"),
        (losses, "compile_eval_step", "trace and compile"),
        (state.Setup, "of", "trace and compile"),
        (state.Setup, "init", "first state"),
        (log, "_rates", "rate of the machine"),
        (loop.Loop, "run", "steps"),
        (losses.Evaluator, "__call__", "evaluations"),
        (checkpoints, "open_manager", "checkpoints"),
        (checkpoints.Checkpoints, "save", "checkpoints"),
        (checkpoints.Checkpoints, "wait", "checkpoints"),
        (checkpoints.Checkpoints, "close", "checkpoints"),
        (log.RunLog, "train", "rows of metrics"),
        (log.RunLog, "sync", "rows of metrics"),
        (log.RunLog, "validation", "rows of metrics"),
        (pictures, "draw", "pictures"),
    ]
    kept = [(owner, name, vars(owner)[name]) for owner, name, _ in parts]
    look = loop.Loop._look_at
    began = time.monotonic()

    def first(self: Any, pending: Any) -> Any:
        found = look(self, pending)
        if pending is not None and clock.first_step is None:
            clock.first_step = time.monotonic() - began
        return found

    for owner, name, part in parts:
        clock.measure(owner, name, part)
    loop.Loop._look_at = first  # type: ignore[method-assign]
    try:
        yield
    finally:
        loop.Loop._look_at = look  # type: ignore[method-assign]
        for owner, name, value in kept:
            setattr(owner, name, value)


def overhead(clock: Clock) -> float:
    return sum(seconds for part, seconds in clock.seconds.items() if part not in TRAINING)


def line(clock: Clock) -> str:
    return f"first step after {clock.first_step or 0:.2f} s, overhead {overhead(clock):.2f} s"


def show(clocks: list[Clock]) -> None:
    """The parts of the first point and, as medians, of the others."""
    from switchx.terminal import table

    first, later = clocks[0], clocks[1:] or clocks
    median: Callable[[Callable[[Clock], float]], float] = lambda of: statistics.median(  # noqa: E731
        map(of, later)
    )
    rows: list[tuple[Any, ...]] = [("seconds", "first point", "later points", "ratio")]
    parts = sorted({part for clock in clocks for part in clock.seconds} - {*TRAINING})
    values = [(part, first.seconds[part], median(lambda c, p=part: c.seconds[p])) for part in parts]
    values.append(("overhead", overhead(first), median(overhead)))
    values.append(("to the first step", first.first_step or 0, median(lambda c: c.first_step or 0)))
    values += [
        (part, first.seconds[part], median(lambda c, p=part: c.seconds[p])) for part in TRAINING
    ]
    for part, once, again in values:
        rows.append((part, f"{once:.2f}", f"{again:.2f}", f"{again / max(once, 1e-9):.3f}"))
    print("\n".join(table(rows)))


def resident() -> float:
    """This process's memory, MB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
