"""How far a preparation is: read from what its workers write, wherever they run."""

import json
import threading
import time
from collections.abc import Sequence
from typing import Any

from switchx import storage, terminal
from switchx.data.prepared.set_plan import PREPARING
from switchx.data.prepared.shard_writer import ShardJob, facts_name, progress_name

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


class _SoFar:
    """Sums over all shards."""

    def __init__(self) -> None:
        self.done = self.documents_of_done = self.documents = self.text_bytes = 0

    def add(self, facts: dict[str, Any], whole: bool) -> None:
        self.documents += int(facts["documents"])
        self.text_bytes += int(facts["text_bytes"])
        self.done += whole
        self.documents_of_done += int(facts["documents"]) if whole else 0


def _so_far(jobs: Sequence[ShardJob]) -> _SoFar:
    sums = _SoFar()
    by_url: dict[str, list[ShardJob]] = {}
    for job in jobs:
        by_url.setdefault(job.url, []).append(job)
    for url, own in by_url.items():
        notes = f"{url}/{PREPARING}"
        names = storage.names_in(notes, "PREPARED_DIR")
        for job in own:
            whole = facts_name(job) in names
            name = facts_name(job) if whole else progress_name(job)
            content = name in names and storage.read_if_there(f"{notes}/{name}", "PREPARED_DIR")
            if content:
                sums.add(json.loads(content), whole)
    return sums
