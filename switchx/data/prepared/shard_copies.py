"""Whole copies of shards from a URL, in a folder on this machine that never outgrows its limit.

The order of training is a permutation of all records: a step's records lie anywhere, and by far the
most cost a request each. A copy costs a request for each 2 MiB of a shard, once for all runs. So a
thread copies as many shards as the limit allows while training reads on, and each is used from the
moment it is whole; what is read is the same. What does not fit is read by requests for good: with
every record as likely as any other, changing what is kept would save nothing.
"""

import contextlib
import hashlib
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

from switchx import storage
from switchx.data.prepared.shards import FileFacts, RemoteShards
from switchx.errors import RunError, UserError
from switchx.terminal import remark

FOLDER = "prepared-shards"
_SPARE_BYTES = 2**30  # that stay free on the disk


class Copies:
    """Copies shards, in a thread of its own from `start` to `stop`.

    A copy is named after its content, so runs and processes share it; a file of that name is used
    only when its content is that. What no longer fits goes, the longest unused first.
    """

    def __init__(self, splits: Sequence[RemoteShards], folder: Path, limit: int) -> None:
        """limit: bytes of all files in the folder."""
        self._folder, self._limit = folder, limit
        self._wanted = _first_that_fit(splits, limit)
        self._count = sum(len(shards.facts) for shards in splits)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def start(self, saying: bool) -> None:
        """Begins, and says on standard error what it does; the second time it does nothing."""
        if not self._wanted or self._thread.ident:
            return
        if saying:
            size = sum(shards.facts[number].bytes for shards, number in self._wanted)
            remark(
                f"copying {len(self._wanted):,} of {self._count:,} shards, "
                f"{size / 1e9:.2f} GB, to {str(self._folder)!r}; until then, and the others, they "
                "are read where they lie."
            )
        self._thread.start()

    def stop(self) -> None:
        """Copies no further shard, and no more of the one begun."""
        self._stop.set()

    def join(self) -> None:
        """Waits for the last copy."""
        if self._thread.ident:
            self._thread.join()

    def _work(self) -> None:
        for shards, number in self._wanted:
            if self._stop.is_set():
                return
            url, facts = shards.paths[number], shards.facts[number]
            try:
                shards.use_copy(number, self._copy(url, facts))
            except _StoppedError:
                return
            except _DamagedError:
                remark(
                    f"{str(url)!r} is not the file that was written (SHA-256), its "
                    "records are read one by one: see `switchx data check`."
                )
            except (UserError, RunError, OSError) as error:
                why = storage.explain(error)
                remark(f"shards are read where they lie: {why}")
                return

    def _copy(self, url: Path, facts: FileFacts) -> Path:
        """The copy of a shard, made where there is none."""
        path = self._folder / f"{facts.sha256}.array_record"
        if storage.size_of(path, "CACHE_DIR") == facts.bytes and _sha256(path) == facts.sha256:
            path.touch()
            return path
        self._make_room(facts.bytes)
        with storage.whole_file(path) as part:
            if not storage.download(url, part, "PREPARED_DIR", self._stop.is_set):
                raise _StoppedError
            if _sha256(part) != facts.sha256:
                raise _DamagedError
        return path

    def _make_room(self, size: int) -> None:
        """Removes what this set does not want, the longest unused first, until there is room."""
        self._folder.mkdir(parents=True, exist_ok=True)
        ours = {f"{shards.facts[n].sha256}.array_record" for shards, n in self._wanted}
        states = []
        for path in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another process makes room, too
                states.append((path.stat().st_mtime, path.stat().st_size, path))
        used = sum(state[1] for state in states)
        for _, there, path in sorted(state for state in states if state[2].name not in ours):
            if used + size <= self._limit:
                break
            storage.remove(path)
            used -= there
        if used + size > self._limit or _free(self._folder) < size + _SPARE_BYTES:
            raise OSError(f"{self._folder} has no room for another")


class _StoppedError(Exception):
    pass


class _DamagedError(Exception):
    pass


def _first_that_fit(splits: Sequence[RemoteShards], limit: int) -> list[tuple[RemoteShards, int]]:
    fitting, size = [], 0
    for shards in splits:
        for number, facts in enumerate(shards.facts):
            if size + facts.bytes <= limit:
                size += facts.bytes
                fitting.append((shards, number))
    return fitting


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
