"""A tracker's writer in a process of its own, seen from the process that trains.

The packages of trackers set up signals, exit hooks, environment variables and threads, print, and
may crash: none of that is the run's. Calls go there as JSON, one a line.
"""

import base64
import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import switchx
from switchx.writers.writer import Row, RunFacts

# Finds switchx where this process found it, and nothing in the working folder: that may hold a
# folder of the name of a package.
_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); import switchx; del sys.path[0]; "
    "from switchx.writers.child import main; main(sys.argv[2])"
)


class InProcess:
    """A `Writer` that hands each call to the tracker's own in another process.

    A call returns once it is handed over: what fails there is raised by a later call.
    """

    def __init__(self, name: str):
        self._name = name
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self, run: RunFacts, step: int, rows: Sequence[Row]) -> None:
        if self._process is None:
            home = str(Path(switchx.__file__).parents[1])
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _START, home, self._name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,  # ctrl-C is for the trainer, which then closes this one
            )
        self._send("begin", dataclasses.asdict(run), step, list(rows))

    def write(self, row: Row) -> None:
        self._send("write", row)

    def text(self, step: int, name: str, text: str) -> None:
        self._send("text", step, name, text)

    def picture(self, step: int, name: str, png: bytes) -> None:
        self._send("picture", step, name, base64.b64encode(png).decode())

    def close(self, status: str) -> None:
        if self._process is None:
            return
        self._send("close", status)
        if self._process.wait():  # another thread kills it where that takes too long
            raise RuntimeError(self._last_words())

    def kill(self) -> None:
        """Ends the process, whatever it is at."""
        if self._process is not None:
            self._process.kill()

    def _send(self, *call: Any) -> None:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(call).encode() + b"\n")
            process.stdin.flush()
        except OSError:  # it is gone
            raise RuntimeError(self._last_words()) from None

    def _last_words(self) -> str:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        said = process.stdout.read().decode(errors="replace").strip()
        return said or f"its process ended with status {process.wait()}"
