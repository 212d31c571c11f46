"""All writers of a run, as the trainer sees them."""

import dataclasses
import json
import os
import re
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from switchx import storage
from switchx.errors import RunError, UserError
from switchx.writers.guard import Guarded, Queued
from switchx.writers.process import InProcess
from switchx.writers.tensorboard import TensorBoard
from switchx.writers.writer import Row, RunFacts, Writer

PATIENCE = 60.0  # seconds that all have to finish in
IDS_FILE = "writers.json"  # in the run's directory
_ID = re.compile("[0-9a-f]{8}")


class Writers:
    """The writers of a run; none do anything before `begin`, which the first host calls alone.

    As a context it closes them at its end.

    Args:
      names: of METRIC_WRITERS.
      own: more of them, the caller's own.
    """

    def __init__(
        self,
        run: RunFacts | None = None,
        names: Sequence[str] = (),
        own: Sequence[Writer] = (),
    ):
        self._run, self._names, self._own = run or RunFacts(), names, own
        self._writers: list[Guarded | Queued] | None = None

    def __enter__(self) -> "Writers":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        stopped = kind is not None and issubclass(kind, KeyboardInterrupt | SystemExit)
        self.close("finished" if kind is None else "stopped" if stopped else "failed")

    def begin(
        self,
        step: int,
        rows: Sequence[Row],
        say: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
    ) -> None:
        """The run goes on behind `step`, up to which it has measured `rows`.

        Args:
          say: shows a line, such as that a writer failed.
        """
        if self._writers is None:
            self._writers = self._open(say)
        self._call("begin", self._run, step, rows)

    def write(self, row: Row) -> None:
        """A row of metrics, as it stands in metrics.jsonl."""
        self._call("write", row)

    def text(self, step: int, name: str, text: str) -> None:
        """Lines for people."""
        self._call("text", step, name, text)

    def picture(self, step: int, name: str, png: bytes) -> None:
        """A picture, as a PNG file's content."""
        self._call("picture", step, name, png)

    def sync(self) -> None:
        """What TensorBoard has survives a kill. Trackers get all rows again at the next start."""
        for writer in self._writers or ():
            if isinstance(writer, Guarded):
                writer.call("sync")

    def close(self, status: str) -> None:
        """Waits, but not for ever, until all is written; see `Writer.close`."""
        self._call("close", status)
        until = time.monotonic() + PATIENCE
        for writer in self._writers or ():
            if isinstance(writer, Queued):
                writer.wait(until)
        self._writers = None

    def _call(self, method: str, *args: Any) -> None:
        for writer in self._writers or ():
            writer.call(method, *args)

    def _open(self, say: Callable[[str], None]) -> list[Guarded | Queued]:
        opened: list[Guarded | Queued] = []
        if "tensorboard" in self._names:
            # Cheap, and what it wrote must not lie behind a checkpoint that follows.
            opened.append(Guarded("tensorboard", TensorBoard(), say))
        trackers = [name for name in self._names if name != "tensorboard"]
        if trackers:
            self._run = _with_id(self._run, say)
        for name in trackers:
            process = InProcess(name)
            opened.append(Queued(Guarded(name, process, say), process.kill))
        for writer in self._own:
            opened.append(Queued(Guarded(type(writer).__name__, writer, say)))
        return opened


def _with_id(run: RunFacts, say: Callable[[str], None]) -> RunFacts:
    """The facts with what only trackers need: the run's name and id, a folder for their files."""
    folder = run.model_dir
    name = os.path.basename(folder.rstrip("/"))
    if not storage.is_remote(folder):
        name = Path(folder).absolute().name
    else:
        cache = Path(os.environ.get("SWITCHX_CACHE") or "~/.cache/switchx").expanduser()
        folder = str(cache / "writers" / folder.replace("://", "/"))
        say(f"switchx: what metric writers keep in files of their own is in {folder}")
    return dataclasses.replace(run, folder=folder, name=name, id=_id(run.model_dir, say))


def _id(model_dir: str, say: Callable[[str], None]) -> str:
    path = storage.as_path(model_dir) / IDS_FILE
    try:
        found = json.loads(storage.read_if_there(path, "MODEL_DIR") or b"{}")["id"]
        if _ID.fullmatch(found):  # it becomes part of file names
            return str(found)
    except (UserError, ValueError, KeyError, TypeError, RecursionError):
        pass  # what cannot be read is written anew
    new = uuid.uuid4().hex[:8]
    try:
        storage.write_whole(path, json.dumps({"id": new}) + "\n")
    except RunError as error:
        say(f"switchx: metric writers will not know this run again ({error})")
    return new
