"""TensorBoard's event files, written by the thread that trains.

tensorboardX's own writer leaves the writing to another thread. That one dies of a full disk or of
a clock that jumps back, and the training then waits for it without end.
"""

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


class EventFile:
    """Scalars of one split of a run.

    Args:
      directory: made if missing.
      first_step: TensorBoard forgets what earlier files say of this step and later ones.
      suffix: of the file's name, so that two files made within a second differ.
    """

    def __init__(self, directory: Path, first_step: int, suffix: str):
        with unimportable("torch"):
            from tensorboardX.event_file_writer import EventsWriter

        directory.mkdir(parents=True, exist_ok=True)
        self._file = EventsWriter(str(directory / "events"), suffix)
        self._write(first_step, session_log={"status": "START"})

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes the scalars of a step."""
        values = [{"tag": tag, "simple_value": value} for tag, value in scalars.items()]
        self._write(step, summary={"value": values})
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _write(self, step: int, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._file.write_event(Event(step=step, wall_time=time.time(), **content))


@contextlib.contextmanager
def unimportable(package: str) -> Iterator[None]:
    """Within, imports of `package` fail, unless it was imported before.

    tensorboardX imports PyTorch where it finds it: seconds, for parts of it that are not used here.
    """
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]
