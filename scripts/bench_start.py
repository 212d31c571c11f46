#!/usr/bin/env python
"""Times how long a command takes to start: training's first step, its end, infer, info, data show.

Each is a process of its own in an empty folder, several times; the best counts. `cold` has no
compiled programs yet, `warm` those of a run before; the embedded corpus and its tokens are there in
both. Beside seconds stands the CPU time, of all threads: on a machine that others use it says more.

    python scripts/bench_start.py
    python scripts/bench_start.py --times 5 --only train
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from switchx.terminal import table

TRAIN = ("train", "--gin.TRAIN_STEPS=3", "--gin.LOG_PERIOD=1")
SET = ("--gin.PREPARED_DIR=set", "--gin.VOCABULARY=default")
STEPS = ("step 1/", "step 3/")  # as the lines that show them begin


class Timing(NamedTuple):
    """Seconds, and CPU seconds, of a process or of a part of it."""

    seconds: float
    cpu: float

    def since(self, earlier: "Timing") -> "Timing":
        return Timing(self.seconds - earlier.seconds, self.cpu - earlier.cpu)


def run(arguments: Sequence[str], folder: Path, text: str = "") -> dict[str, Timing]:
    """How long a command took, as "whole", and until it showed each of STEPS.

    Raises:
      RuntimeError: it failed.
    """
    began, found, lines = time.monotonic(), {}, list[str]()
    environment = {**os.environ, "SWITCHX_CACHE": str(folder / "cache"), "PYTHONUNBUFFERED": "1"}
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        environment.pop(name, None)
    process = subprocess.Popen(
        [sys.executable, "-m", "switchx.cli.main", *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin as written:
        written.write(text)
    for line in process.stdout:
        lines.append(line)
        for name in STEPS:
            if line.startswith(name):
                found[name] = Timing(time.monotonic() - began, _cpu_so_far(process.pid))
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"switchx {' '.join(arguments)} failed: {''.join(lines[-5:])}")
    found["whole"] = Timing(time.monotonic() - began, used.ru_utime + used.ru_stime)
    return found


def _cpu_so_far(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # not Linux
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def trained(folder: Path, times: int, cold: bool) -> list[tuple[str, Timing]]:
    """The parts of a run of three steps of the quickstart."""
    first, end, whole = [], [], []
    for number in range(times):
        if cold:
            _forget_programs(folder)
        found = run([*TRAIN, f"--model_dir=runs/{'cold' if cold else 'warm'}{number}"], folder)
        first.append(found[STEPS[0]])
        end.append(found["whole"].since(found[STEPS[1]]))
        whole.append(found["whole"])
    state = "cold" if cold else "warm"
    return [
        (f"train to the first step, {state}", _best(first)),
        (f"train from the last step to the end, {state}", _best(end)),
        (f"train of 3 steps, {state}", _best(whole)),
    ]


def _forget_programs(folder: Path) -> None:
    for file in (folder / "cache" / "xla").glob("*"):
        file.unlink()


def _best(timings: Sequence[Timing]) -> Timing:
    return Timing(min(of.seconds for of in timings), min(of.cpu for of in timings))


def several(arguments: Sequence[str], folder: Path, times: int, text: str = "") -> Timing:
    """The best of a command that is run so many times, once before not counted."""
    run(arguments, folder, text)
    return _best([run(arguments, folder, text)["whole"] for _ in range(times)])


def parts(folder: Path, times: int) -> dict[str, Callable[[], list[tuple[str, Timing]]]]:
    """What is timed, by the names of --only."""
    asked = ("infer", "--model_dir=runs/first")
    return {
        "train": lambda: [*trained(folder, times, True), *trained(folder, times, False)],
        "infer": lambda: [
            ("infer of one line, warm", several(asked, folder, times, "a <extra_id_0> c\n"))
        ],
        "info": lambda: [("info", several(["info"], folder, times))],
        "show": lambda: [
            ("data show of a prepared set", several(["data", "show", *SET], folder, times))
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=3, help="runs of each (%(default)s)")
    parser.add_argument("--only", default="train,infer,info,show", help="%(default)s")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run([*TRAIN, "--model_dir=runs/first"], folder)  # the corpus, its tokens, a model
        if "show" in args.only:
            run(["data", "prepare", *SET], folder)
        rows = []
        for part in args.only.split(","):
            for what, timing in parts(folder, args.times)[part]():
                rows.append((what, f"{timing.seconds:.1f}", f"{timing.cpu:.1f}"))
        print("\n".join(table([("", "s", "CPU s"), *rows])))


if __name__ == "__main__":
    main()
