"""Several workers of one sweep on one machine: processes of their own, each with its log."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from switchx import storage

POLL = 0.5  # seconds


def gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The names of the GPUs that a process of this machine would see; none on other machines."""
    named = environment.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name.strip() not in ("", "-1")]
    if environment.get("JAX_PLATFORMS", "") in ("cpu", "tpu"):
        return []
    nodes = Path("/dev").glob("nvidia[0-9]*")
    return sorted((node.name.removeprefix("nvidia") for node in nodes), key=int)


def environments(slots: int, devices: Sequence[str]) -> list[dict[str, str]]:
    """What each worker's environment says of the devices that are its own.

    GPUs are shared out; where there are fewer than workers, several have parts of one's memory.
    Cores are not: how many a process may use decides, in XLA, in which order a product is summed,
    and a point's numbers are to be those that it has alone.
    """
    if not devices:
        return [{} for _ in range(slots)]
    each, own = len(devices) // slots, []
    for slot in range(slots):
        if each:
            mine = devices[slot * each : (slot + 1) * each]
            own.append({"CUDA_VISIBLE_DEVICES": ",".join(mine)})
            continue
        number = slot % len(devices)
        sharing = len(range(number, slots, len(devices)))
        own.append(
            {
                "CUDA_VISIBLE_DEVICES": devices[number],
                "XLA_PYTHON_CLIENT_MEM_FRACTION": f"{0.9 / sharing:.2f}",
            }
        )
    return own


class Slots:
    """The workers of this machine.

    Args:
      command: of one worker.
      logs: the folder of their logs.
      say: shows a line.
    """

    def __init__(self, command: Sequence[str], logs: Path, say: Callable[[str], None]) -> None:
        self._command, self._logs, self._say = list(command), logs, say
        self._processes: list[subprocess.Popen[bytes]] = []
        self._signals: list[signal.Signals] = []  # that came so far
        self._told: dict[int, int] = {}  # how many of them a worker had

    def run(self, slots: int, between: Callable[[], object], devices: Sequence[str]) -> int:
        """Starts so many workers and waits for all; returns the status to leave with.

        Ctrl-C and SIGTERM go on to each of them once; they save and leave.

        Args:
          between: is called all the while.

        Raises:
          RunError: a log cannot be written.
        """
        with self._forwarding():
            try:
                for slot, own in enumerate(environments(slots, devices)):
                    self._processes.append(self._start(slot, own))
                    self._pass_on()  # one may have come while it started
                while any(process.poll() is None for process in self._processes):
                    between()
                    time.sleep(POLL)
            except BaseException:
                self._forward(signal.SIGTERM, None)  # nobody would look after them
                raise
        between()
        return self._status()

    def _start(self, slot: int, own: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        log = self.log(slot)
        with storage.write_errors(log):
            log.parent.mkdir(parents=True, exist_ok=True)
            output = log.open("ab")
        with output:
            return subprocess.Popen(
                self._command,
                env={**os.environ, **own},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a terminal's ctrl-C reaches it through us, and once
            )

    def log(self, slot: int) -> Path:
        """Of a worker; of one of an earlier start too."""
        host = re.sub(r"[^A-Za-z0-9.-]", "-", os.uname().nodename)
        return self._logs / f"{host}-{slot}.log"

    def _status(self) -> int:
        """The signal's where there was one; else 0, or that of the first that failed."""
        statuses = [process.returncode for process in self._processes]
        for slot, status in enumerate(statuses):
            if status < 0 or (status and not self._signals):
                self._say(f"worker {slot} ended with status {status}: see {self.log(slot)}")
        if self._signals:
            return 128 + self._signals[-1]
        first = next((status for status in statuses if status), 0)
        return first if first >= 0 else 128 - first  # as shells report a signal

    @contextlib.contextmanager
    def _forwarding(self) -> Iterator[None]:
        before: dict[signal.Signals, Any] = {}
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, self._forward)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _forward(self, number: int, _: FrameType | None) -> None:
        self._signals.append(signal.Signals(number))
        self._pass_on()

    def _pass_on(self) -> None:
        """To each worker the signals that it has not had, each once."""
        for process in self._processes:
            had = self._told.get(process.pid, 0)
            self._told[process.pid] = len(self._signals)
            for number in self._signals[had:]:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(number)


def worker_command(arguments: Sequence[str]) -> list[str]:
    """`switchx sweep run` with these arguments, by this Python."""
    return [sys.executable, "-m", "switchx.cli.main", "sweep", "run", *arguments]
