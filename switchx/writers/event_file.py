"""TensorBoard's event files, written by the thread that trains.

tensorboardX's own writer leaves the writing to another thread. That one dies of a full disk or of
a clock that jumps back, and the training then waits for it without end. It opens files by itself,
too; only its messages and its checksum are taken.
"""

import contextlib
import functools
import socket
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from switchx import storage


@functools.cache
def messages() -> Any:
    """The classes of messages, and the checksum of records."""
    with _unimportable("torch", "boto3", "google.cloud.storage"):
        from tensorboardX.proto import api_pb2, event_pb2, plugin_hparams_pb2, summary_pb2
        from tensorboardX.record_writer import masked_crc32c
    return SimpleNamespace(
        Event=event_pb2.Event,
        Summary=summary_pb2.Summary,
        HParams=plugin_hparams_pb2.HParamsPluginData,
        api=api_pb2,
        checksum=masked_crc32c,
    )


class EventFile:
    """Of one folder: what TensorBoard calls a run.

    Args:
      directory: made if missing.
      first_step: TensorBoard forgets what earlier files say of this step and later ones; None
        where this file goes on with them.

    Attributes:
      size: bytes so far.
    """

    def __init__(self, directory: storage.AnyPath, first_step: int | None):
        # TensorBoard reads what is named so, in the order of the names. A rollback may make two
        # files within a second.
        name = f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}"
        self._file = storage.open_appender(storage.as_path(directory) / name)
        self.size = 0
        self._write(file_version="brain.Event:2")
        if first_step is not None:
            self._write(step=first_step, session_log={"status": "START"})

    def add(self, step: int, values: Sequence[Any]) -> None:
        """Writes the values of a step: each a `Summary.Value`, or a dictionary of its fields."""
        self._write(step=step, summary={"value": values})
        self._file.flush()

    def sync(self) -> None:
        """What was added survives a kill."""
        self._file.sync()

    def close(self) -> None:
        self._file.close()

    def _write(self, **content: Any) -> None:
        """A record of the TFRecord format: length and message, each behind it its checksum."""
        message = messages().Event(wall_time=time.time(), **content).SerializeToString()
        length = struct.pack("<Q", len(message))
        for part in (length, message):
            self._file.append(part + struct.pack("<I", messages().checksum(part)))
            self.size += len(part) + 4


@contextlib.contextmanager
def _unimportable(*packages: str) -> Iterator[None]:
    """Within, imports of these fail, unless they were imported before.

    tensorboardX imports them where it finds them: seconds, for parts of it that are not used here.
    """
    new = [package for package in packages if package not in sys.modules]
    sys.modules.update(dict.fromkeys(new))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for package in new:
            del sys.modules[package]
