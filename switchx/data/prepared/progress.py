"""How far a preparation is: read from what its workers write, wherever they run."""

import dataclasses
import json
import threading
import time
from collections.abc import Sequence

from switchx import storage, terminal
from switchx.data.prepared.set_plan import PREPARING
from switchx.data.prepared.shard_writer import ShardJob, facts_name, notes_of, progress_name

SECONDS = 5.0


class Progress:
    """Within, prints a line every few seconds: documents and megabytes a second, and what is left.

    Args:
      documents: in all, where the sources know; else estimated from the shards that are done.
    """

    def __init__(self, jobs: Sequence[ShardJob], documents: int | None) -> None:
        self._jobs, self._documents = jobs, documents
        self._shown = terminal.Progress(documents, "documents")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Progress":
        self._began, self._before = time.monotonic(), _so_far(self._jobs)
        done = self._before.done
        self._shown.message(f"{len(self._jobs)} shards, {done} of them done before.")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._say()
        self._shown.close()

    def _watch(self) -> None:
        while not self._stop.wait(SECONDS):
            self._say()

    def _say(self) -> None:
        now = _so_far(self._jobs)
        seconds = max(time.monotonic() - self._began, 1e-3)
        rate = (now.documents - self._before.documents) / seconds
        megabytes = (now.text_bytes - self._before.text_bytes) / seconds / 1e6
        if self._documents is None and now.done:
            self._shown.total = round(now.documents_of_done / now.done * len(self._jobs))
        shards = f"{now.done} of {len(self._jobs)} shards"
        news = [shards, f"{rate:,.0f} documents/s", f"{megabytes:,.2f} MB/s"]
        self._shown.update(now.documents, news, rate)


@dataclasses.dataclass
class _SoFar:
    """Sums over all shards; `done` counts those that are whole."""

    done: int = 0
    documents_of_done: int = 0
    documents: int = 0
    text_bytes: int = 0


def _so_far(jobs: Sequence[ShardJob]) -> _SoFar:
    sums = _SoFar()
    names = {
        url: storage.names_in(f"{url}/{PREPARING}", "PREPARED_DIR")
        for url in {job.url for job in jobs}
    }
    for job in jobs:
        whole = facts_name(job) in names[job.url]
        name = facts_name(job) if whole else progress_name(job)
        content = None
        if name in names[job.url]:
            content = storage.read_if_there(notes_of(job.url, name), "PREPARED_DIR")
        if content:
            noted = json.loads(content)
            sums.documents += int(noted["documents"])
            sums.text_bytes += int(noted["text_bytes"])
            sums.done += whole
            sums.documents_of_done += int(noted["documents"]) if whole else 0
    return sums
