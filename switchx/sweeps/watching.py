"""Shows how a sweep stands while workers are at it."""

import sys
import time
from collections.abc import Callable
from typing import TextIO

from switchx import storage
from switchx.sweeps.folder import SweepFolder
from switchx.sweeps.states import States
from switchx.sweeps.status import Status
from switchx.terminal import Redrawn

PERIOD, REMOTE_PERIOD = 2.0, 15.0  # seconds between two looks; in a bucket each is many requests


class Watching:
    """A table that is drawn anew on a terminal; elsewhere a line where something changed."""

    def __init__(
        self, folder: SweepFolder, say: Callable[[str], None], stream: TextIO | None = None
    ) -> None:
        stream = stream or sys.stderr
        self._states, self._say = States(folder), say
        self._drawn = Redrawn(stream) if stream.isatty() else None
        self._period = REMOTE_PERIOD if storage.is_remote(folder.path) else PERIOD
        self._status: Status | None = None
        self._looked = float("-inf")

    def look(self) -> bool:
        """Shows what is new, if it is time to; whether all is over."""
        if time.monotonic() - self._looked >= self._period:
            self.show()
        return self._status is not None and self._status.over

    def show(self) -> None:
        """Shows what is new."""
        status = Status.read(self._states)
        if self._drawn is not None:
            self._drawn.show(status.lines())
        else:
            changes = status.changes(self._status)
            for line in changes:
                self._say(line)
            if changes:
                self._say(status.summary())
        self._status, self._looked = status, time.monotonic()
