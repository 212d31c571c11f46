"""Kills a training run at random moments, again and again, and checks that it ends the same.

    python scripts/fault_runs.py [--kills=100] [--signal=KILL] [--seed=0]
      [--model_dir=runs/faults] [--object_store=gs] [--faults=0.02] [FLAGS]

FLAGS are those of `switchx train`, as --gin.PREPARED_DIR=... A tiny model is trained on the
embedded corpus once undisturbed. Then the same run is killed at moments spread evenly over its life
(start, compilation, steps, saves, evaluations), started again until it ends, and compared: the
parameters bit by bit, and every loss in metrics.jsonl. With --object_store the killed runs lie in a
bucket of a server on this machine, of whose answers a share may be --faults; the undisturbed one
stays on the disk.
"""

import argparse
import collections
import contextlib
import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import object_stores

from switchx import storage
from switchx.training.checkpoints.identity import is_whole

REPOSITORY = Path(__file__).resolve().parents[1]
STEPS, EVAL_PERIOD, CHECKPOINT_PERIOD = 20, 10, 5
FLAGS = [
    "--cpu_devices=1",
    "--gin.ModelConfig.d_model=32",
    "--gin.ModelConfig.d_ff=64",
    "--gin.ModelConfig.num_heads=2",
    "--gin.ModelConfig.d_kv=16",
    "--gin.ModelConfig.num_layers=1",
    "--gin.SwitchConfig.every=1",
    "--gin.NUM_EXPERTS=4",
    "--gin.DROPOUT_RATE=0.1",
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 64, 'targets': 32}",
    "--gin.BATCH_SIZE=4",
    "--gin.ENCODER_GROUP_SIZE=64",
    "--gin.DECODER_GROUP_SIZE=32",
    f"--gin.TRAIN_STEPS={STEPS}",
    "--gin.LOG_PERIOD=1",
    f"--gin.EVAL_PERIOD={EVAL_PERIOD}",
    "--gin.EVAL_STEPS=2",
    f"--gin.CHECKPOINT_PERIOD={CHECKPOINT_PERIOD}",
]


def command(directory: storage.AnyPath, *flags: str) -> list[str]:
    """The command line of the run."""
    program = [sys.executable, "-m", "switchx.cli.main", "train", f"--model_dir={directory}"]
    return [*program, *FLAGS, *flags]


class Attempt:
    """One process of `switchx train`; its output goes to the file `log`, else beside the run."""

    def __init__(
        self,
        directory: storage.AnyPath,
        *flags: str,
        log: Path | None = None,
        **environment: str,
    ):
        self.directory = directory
        self.log = log or Path(directory).with_name(f"{Path(directory).name}.log")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        # A shell's background job ignores ctrl-C, and what it starts would do so too.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command(directory, *flags),
                cwd=REPOSITORY,
                env={**os.environ, **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.began = time.monotonic()

    def phase(self) -> str:
        """What the run is at, by what it wrote: start, step, save, evaluation or end."""
        if "\nstep " not in self.log.read_text():  # it logs each
            return "start"
        checkpoints = storage.as_path(self.directory) / "checkpoints"
        done = rows(self.directory)
        for name in storage.names_in(checkpoints, "MODEL_DIR"):
            if "orbax-checkpoint-tmp" in name or not is_whole(checkpoints / name):
                return "save"
        last = max((step for split, step in done if split == "train"), default=0)
        evaluated = ("validation", last) in done
        if last == STEPS and evaluated:
            return "end"
        return "evaluation" if last and last % EVAL_PERIOD == 0 and not evaluated else "step"

    def send_after(self, seconds: float, number: int) -> str | None:
        """Sends a signal so long after the start; returns the phase, None if it ended before."""
        try:
            self.process.wait(max(0.0, self.began + seconds - time.monotonic()))
            return None
        except subprocess.TimeoutExpired:
            phase = self.phase()
            self.process.send_signal(number)
            self.process.wait()
            return phase

    def end(self) -> int:
        """Waits for the process; returns its exit status."""
        return self.process.wait()


def statuses(number: int, phase: str | None) -> tuple[int, ...]:
    """Exit statuses of a run that was sent a signal at a phase.

    A start never outlives one; a run that is all but done may end. None was sent at phase None.
    """
    if phase is None:
        return (0,)
    stopped = (-number, 128 + number)
    return stopped if phase == "start" else (0, *stopped)


def rows(directory: storage.AnyPath) -> dict[tuple[str, int], float]:
    """Losses by split and step."""
    from switchx.training.run_reader import metric_rows

    return {(row["split"], row["step"]): row["loss"] for row in metric_rows(directory)}


def parameters(directory: Path, step: int) -> list[tuple[str, np.ndarray]]:
    """Of a step's checkpoint, by name."""
    import jax
    import orbax.checkpoint as ocp

    with warnings.catch_warnings(), ocp.PyTreeCheckpointer() as checkpointer:
        warnings.simplefilter("ignore")  # of shardings: one device saved this, and one reads it
        tree = checkpointer.restore(directory.resolve() / "checkpoints" / str(step) / "params")
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path), np.asarray(leaf)) for path, leaf in leaves]


def copy(url: storage.AnyPath, folder: Path) -> None:
    """Copies all that lies at a URL to a folder of this machine."""
    for file in storage.list_files(f"{url}/**", "MODEL_DIR"):
        with storage.whole_file(folder / file.removeprefix(f"{url}/")) as part:
            part.write_bytes(storage.read_bytes(file, "MODEL_DIR"))


def differences(directory: storage.AnyPath, undisturbed: Path, step: int = STEPS) -> list[str]:
    """What differs between two runs at a step, their end, in words."""
    if storage.is_remote(directory):
        here = undisturbed.with_name("copy")
        storage.remove(here)
        copy(directory, here)
        directory = here
    directory, found = Path(directory), []
    if rows(directory) != rows(undisturbed):
        found.append("losses in metrics.jsonl")
    pairs = zip(parameters(directory, step), parameters(undisturbed, step), strict=True)
    found += [name for (name, a), (_, b) in pairs if a.tobytes() != b.tobytes()]
    return found


@dataclasses.dataclass
class Outcome:
    """What came of killing: kills by phase, processes started, ends that differed or failed."""

    kills: collections.Counter[str]
    starts: int
    ends: int
    wrong: list[str]


def kill_runs(
    directory: storage.AnyPath,
    undisturbed: Path,
    life: float,
    kills: int,
    number: signal.Signals,
    seed: int,
    *flags: str,
) -> Iterator[Outcome]:
    """Kills runs until there were so many kills; each run is then led to its end and compared.

    A run that ended before it was to be killed says that lives are shorter, as those are that
    find their programs compiled. Yields what came of it so far after each process.
    """
    moments, log = random.Random(seed), undisturbed.with_name("killed.log")
    outcome = Outcome(collections.Counter(), 0, 0, [])
    while outcome.kills.total() < kills and not outcome.wrong:
        storage.remove(directory)
        status = None
        while status != 0 and not outcome.wrong:
            attempt, is_whole_life = Attempt(directory, *flags, log=log), status is None
            outcome.starts += 1
            phase = None
            if outcome.kills.total() < kills:
                phase = attempt.send_after(moments.uniform(0, life), number)
                outcome.kills.update([phase] if phase else [])
                if is_whole_life and not phase:
                    life = min(life, time.monotonic() - attempt.began)
            status = attempt.end()
            if status not in statuses(number, phase):
                outcome.wrong.append(f"exit status {status}: {attempt.log.read_text()[-500:]}")
            yield outcome
        if not outcome.wrong:
            outcome.wrong += differences(directory, undisturbed)
        outcome.ends += 1
    yield outcome


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--signal", choices=("KILL", "TERM", "INT"), default="KILL")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model_dir", default="runs/faults", help="emptied first")
    parser.add_argument("--object_store", choices=object_stores.STORES)
    parser.add_argument("--faults", type=float, default=0.0, help="share of its answers")
    args, flags = parser.parse_known_args()
    os.environ["JAX_PLATFORMS"] = "cpu"  # also of this process, which compares
    number = signal.Signals[f"SIG{args.signal}"]
    undisturbed = Path(args.model_dir).expanduser() / "undisturbed"
    # The first run fills the compile cache; the second tells how long a life is.
    for _ in range(2):
        storage.remove(undisturbed)
        attempt = Attempt(undisturbed, *flags)
        if attempt.end():
            print(attempt.log.read_text(), file=sys.stderr)
            return 1
        life = time.monotonic() - attempt.began
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        killed: storage.AnyPath = undisturbed.with_name("killed")
        if args.object_store:
            store = stack.enter_context(object_stores.STORES[args.object_store]())
            os.environ.update(store.environment)
            killed = f"{store.root}/killed"
            store.choose = object_stores.at_random(args.faults, args.seed)
        for outcome in kill_runs(killed, undisturbed, life, args.kills, number, args.seed, *flags):
            progress = f"{outcome.kills.total()} of {args.kills} kills, {outcome.ends} ends"
            print(f"\r{progress}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print(f"{'signal':<12}{'kills':>7}{'start':>7}{'step':>7}{'save':>7}{'eval':>7}{'end':>7}")
    phases = ("start", "step", "save", "evaluation", "end")
    counts = "".join(f"{outcome.kills[phase]:>7}" for phase in phases)
    print(f"SIG{args.signal:<9}{outcome.kills.total():>7}{counts}")
    print(
        f"{outcome.starts} processes, {outcome.ends} runs to their end, a life of {life:.0f} s, "
        f"{(time.monotonic() - began) / 60:.0f} minutes in all"
    )
    print("all ended as the undisturbed run" if not outcome.wrong else f"WRONG: {outcome.wrong}")
    return 1 if outcome.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
