"""Kills the workers of a sweep at random moments, and checks that every point ends once, as alone.

    python scripts/sweep_kills.py [--kills=100] [--workers=3] [--signal=KILL] [--seed=0]
      [--sweep_dir=runs/sweep_kills] [--alone=SWEEP] [--life=SECONDS] [--object_store=gs]
      [--faults=0.02] [FLAGS]

FLAGS are those of `switchx sweep`, as --gin.PREPARED_DIR=... Twelve tiny points are first trained
one by one, by `switchx train` of their config.gin. Then workers of a sweep of them are killed at
moments spread evenly over the time that one takes to start and to run two points, each started
again at once, until there were so many kills; sweeps that come to their end are compared and begun
anew. Each point's parameters must be those that it has alone bit by bit, its metrics the same, its
done.json written once, no try may have failed, and the report must be that of the points alone but
for what rests on a clock. With --object_store the sweep lies in a bucket of a server on this
machine, of whose answers a share may be --faults.
"""

import argparse
import collections
import contextlib
import dataclasses
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import object_stores
from fault_runs import REPOSITORY, differences

from switchx import storage
from switchx.sweeps.folder import SweepFolder
from switchx.sweeps.states import States

GIN = """
include 'configs/runs/quickstart.gin'
TRAIN_STEPS = 20
BATCH_SIZE = 4
TASK_FEATURE_LENGTHS = {'inputs': 64, 'targets': 32}
ENCODER_GROUP_SIZE = 64
DECODER_GROUP_SIZE = 32
DROPOUT_RATE = 0.1
LOG_PERIOD = 1
EVAL_PERIOD = 10
EVAL_STEPS = 2
CHECKPOINT_PERIOD = 5
METRIC_WRITERS = ()
ModelConfig.d_model = 32
ModelConfig.d_ff = 64
ModelConfig.d_kv = 16
ModelConfig.num_heads = 2
SweepConfig.axes = {'NUM_EXPERTS': [1, 2, 4], 'SEED': [0, 1, 2, 3]}
"""


def start(log: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    """A process of switchx; its output is added to a log."""
    own = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.05"}
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "switchx.cli.main", *arguments],
            cwd=REPOSITORY,
            env={**os.environ, **own},
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def done_of(log: Path) -> collections.Counter[str]:
    """How often a log says of each point that it is done."""
    said = log.read_text(errors="replace") if log.exists() else ""
    return collections.Counter(re.findall(r"^switchx: (\S+) is done", said, re.MULTILINE))


@dataclasses.dataclass
class Worker:
    """One of several at a sweep, started again when it is killed."""

    command: list[str]
    log: Path
    process: "subprocess.Popen[bytes] | None" = None
    end: float = 0.0

    def begin(self, life: float) -> None:
        self.process = start(self.log, *self.command)
        self.end = time.monotonic() + life

    def status(self) -> int | None:
        assert self.process is not None
        return self.process.poll()


class Sweep:
    """A sweep whose workers are killed."""

    def __init__(
        self, directory: storage.AnyPath, command: list[str], logs: Path, life: float
    ) -> None:
        self.directory, self._life = directory, life
        self._command, self._logs = command, logs
        self.kills, self.starts, self.wrong = 0, 0, []  # type: ignore[var-annotated]

    def run(self, workers: int, kills: int, number: int, moments: random.Random) -> None:
        """Kills so many times at most; returns when all points are done."""
        each = [Worker(self._command, self._logs / f"worker-{n}.log") for n in range(workers)]
        for worker in each:
            worker.log.unlink(missing_ok=True)
            self._begin(worker, moments)
        while not self.wrong and any(worker.status() is None for worker in each):
            for worker in each:
                status = worker.status()
                if status is None and time.monotonic() > worker.end and self.kills < kills:
                    assert worker.process is not None
                    worker.process.send_signal(number)
                    status = worker.process.wait()
                    self.kills += status != 0
                    if status not in (0, -number, 128 + number):
                        self._complain(worker, status)
                    self._begin(worker, moments)
                elif status not in (None, 0):
                    self._complain(worker, status)
            time.sleep(0.05)
        for worker in each:
            if worker.process is not None and worker.status() is None:
                worker.process.kill()

    def _begin(self, worker: Worker, moments: random.Random) -> None:
        self.starts += 1
        worker.begin(moments.uniform(0, self._life))

    def _complain(self, worker: Worker, status: int | None) -> None:
        self.wrong.append(f"exit status {status}: {worker.log.read_text()[-800:]}")

    def compare(self, alone: SweepFolder) -> None:
        """Notes whatever is not as it should be at the end."""
        folder = SweepFolder.open(self.directory)
        states = States(folder)
        said = sum((done_of(log) for log in self._logs.glob("worker-*.log")), collections.Counter())
        for point in folder.points:
            state = states.of(point)
            if state.done is None:
                self.wrong.append(f"{point.name} is not done")
                continue
            if state.failures:
                self.wrong.append(f"{point.name} failed: {states.why(point, state)}")
            if said[point.name] > 1:
                self.wrong.append(f"{point.name} was done {said[point.name]} times")
            run = folder.run_directory(point)
            found = differences(run, alone.run_directory(point), point.steps)
            self.wrong += [f"{point.name} differs in {what}" for what in found]
        if not self.wrong:
            own, other = (reported(of.path, self._logs) for of in (folder, alone))
            self.wrong += [
                f"the report's {what} differs" for what in own if own[what] != other[what]
            ]


def reported(sweep: storage.AnyPath, logs: Path) -> dict[str, Any]:
    """What `switchx sweep report` writes that rests on no clock, by its name."""
    output, log = logs / "report", logs / "report.log"
    flags = [f"--sweep_dir={sweep}", f"--output={output}"]
    if start(log, "sweep", "report", *flags).wait():
        raise SystemExit(log.read_text())
    document = json.loads((output / "report.json").read_text())
    timed = (document.pop("time")["files"], document["files"].pop(0))  # the page shows all
    assert timed[1] == "report.html"
    files = {name: (output / name).read_bytes() for name in document["files"]}
    return {"report.json": document, **files}


def alone(folder: SweepFolder, logs: Path) -> None:
    """Trains each point by its configuration alone, two at a time."""
    todo, running = list(folder.points), []  # type: ignore[var-annotated]
    while todo or running:
        while todo and len(running) < 2:
            point = todo.pop(0)
            config, run = folder.config_file(point), folder.run_directory(point)
            flags = [f"--gin_file={config}", f"--model_dir={run}", "--cpu_devices=1"]
            running.append(start(logs / f"{point.name}.log", "train", *flags))
        if running.pop(0).wait():
            raise SystemExit(f"a point alone failed: see {logs}/*.log")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--signal", choices=("KILL", "TERM", "INT"), default="KILL")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sweep_dir", default="runs/sweep_kills", help="emptied first")
    parser.add_argument("--alone", help="a sweep whose points ran alone, of an earlier call")
    parser.add_argument("--life", type=float, help="most seconds of a worker before its kill")
    parser.add_argument("--object_store", choices=object_stores.STORES)
    parser.add_argument("--faults", type=float, default=0.0, help="share of its answers")
    args, flags = parser.parse_known_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    os.environ["JAX_PLATFORMS"] = "cpu"  # also of this process, which compares
    own = Path(args.sweep_dir).expanduser().resolve()
    storage.remove(own)
    own.mkdir(parents=True)
    gin = own / "kills.gin"
    gin.write_text(GIN)
    stated = [f"--gin_file={gin}", *flags]
    planned = Path(args.alone).expanduser() if args.alone else own / "alone"
    began = time.monotonic()
    if not args.alone:
        if start(own / "plan.log", "sweep", "plan", *stated, f"--sweep_dir={planned}").wait():
            raise SystemExit((own / "plan.log").read_text())
        alone(SweepFolder.open(planned), own)
    # They ran two at a time: by default a life is two starts and two points.
    life = args.life or (30.0 if args.alone else (time.monotonic() - began) / 6 * 2)
    print(f"twelve points alone; a worker's life is up to {life:.0f} s", file=sys.stderr)
    number, moments = signal.Signals[f"SIG{args.signal}"], random.Random(args.seed)
    kills = starts = ends = 0
    wrong: list[str] = []
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        directory: storage.AnyPath = own / "killed"
        if args.object_store:
            store = stack.enter_context(object_stores.STORES[args.object_store]())
            os.environ.update(store.environment)
            directory = f"{store.root}/killed"
            store.choose = object_stores.at_random(args.faults, args.seed)
        while kills < args.kills and not wrong:
            storage.remove(directory)
            command = ["sweep", "run", *stated, f"--sweep_dir={directory}", "--cpu_devices=1"]
            sweep = Sweep(directory, command, own, life)
            sweep.run(args.workers, args.kills - kills, number, moments)
            if not sweep.wrong:
                sweep.compare(SweepFolder.open(planned))
            wrong, ends = sweep.wrong, ends + 1
            kills, starts = kills + sweep.kills, starts + sweep.starts
            print(f"{kills} of {args.kills} kills, {ends} sweeps", file=sys.stderr, flush=True)
    minutes = (time.monotonic() - began) / 60
    print(
        f"SIG{args.signal}: {kills} kills of {starts} workers, {ends} sweeps of 12 points to their "
        f"end, {minutes:.0f} minutes"
    )
    print("every point ended once, as alone" if not wrong else f"WRONG: {wrong}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
