"""TensorBoard's event files, written by the thread that trains.

tensorboardX's own writer leaves the writing to another thread. That one dies of a full disk or of
a clock that jumps back, and the training then waits for it without end. It opens files by itself,
too; only its messages and its checksum are taken.
"""

import contextlib
import socket
import struct
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from switchx import storage


class EventFile:
    """Scalars of one split of a run.

    Args:
      directory: made if missing.
      first_step: TensorBoard forgets what earlier files say of this step and later ones.
      suffix: of the file's name, so that two files made within a second differ.
    """

    def __init__(self, directory: storage.AnyPath, first_step: int, suffix: str):
        with unimportable("torch"):
            from tensorboardX.proto.event_pb2 import Event
            from tensorboardX.record_writer import masked_crc32c

        self._event, self._checksum = Event, masked_crc32c
        # TensorBoard reads what is named so, in the order of the names.
        name = f"events.out.tfevents.{time.time():010.0f}.{socket.gethostname()}{suffix}"
        self._file = storage.open_appender(storage.as_path(directory) / name)
        self._write(file_version="brain.Event:2")
        self._write(step=first_step, session_log={"status": "START"})

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes the scalars of a step."""
        values = [{"tag": tag, "simple_value": value} for tag, value in scalars.items()]
        self._write(step=step, summary={"value": values})
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _write(self, **content: Any) -> None:
        """A record of the TFRecord format: length and message, each behind it its checksum."""
        message = self._event(wall_time=time.time(), **content).SerializeToString()
        length = struct.pack("<Q", len(message))
        for part in (length, message):
            self._file.append(part + struct.pack("<I", self._checksum(part)))


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
