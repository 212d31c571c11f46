"""Who works on a point: files that are made once, and written anew while their maker lives.

A point's claims lie in its folder of the sweep's `state`: `claim.0`, `claim.1` and so on, and the
highest is the one that counts. To take a point is to make the next one, which `create_once` lets
one worker do; nothing else is ever decided by a file's absence, so the highest is never removed.
Its holder writes it anew every `BEAT` seconds, and at the end writes that it is over. Whoever wants
the point may have it at once if the holder says so or was a process of this machine that has
ended, else if nothing was written for `EXPIRY` seconds by his own clock: no clock is compared with
another machine's. A holder that could not write for as long, or sees a higher claim, ends its
process, as a lost lease does (`switchx.storage`).

This works alike on a disk, on a file system that several machines share and in a bucket. The run
directory's own lock stands besides.
"""

import contextlib
import dataclasses
import json
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from switchx import storage
from switchx.errors import RunError, UserError
from switchx.terminal import remark

BEAT = 10.0
EXPIRY = 120.0
_LIMIT = 10.0  # seconds of one renewal, which may hang
_CLAIM = re.compile(r"claim\.(\d{1,9})")


@dataclasses.dataclass(frozen=True)
class Look:
    """What a look at a point's claims said.

    Attributes:
      next: the number of the claim that takes the point; None while another holds it.
      holder: what the highest claim says; {} where there is none.
      alive: whether its holder was seen to write it anew.
      silent: seconds for which it was seen not to.
    """

    next: int | None
    holder: Mapping[str, Any]
    alive: bool = False
    silent: float = 0.0


@dataclasses.dataclass
class _Seen:
    number: int
    content: bytes | None
    since: float
    looked: float


class Claims:
    """One worker's view of the claims of a sweep's points.

    Args:
      folder: where the claims of a point of some name lie.
      maker: what is to stand in this worker's claims, beside what tells processes apart.
      lost: is called, in a thread of its own, with the point's name and why, where a claim that
        was held is not any more; ends the process by default.
    """

    def __init__(
        self,
        folder: Callable[[str], Path],
        maker: Mapping[str, Any],
        lost: Callable[[str, str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self.maker, self._clock = folder, dict(maker), clock
        self._lost = lost or _end
        self._seen: dict[str, _Seen] = {}

    def look(self, name: str) -> Look:
        """Who holds a point now.

        Raises:
          UserError: its folder cannot be read.
        """
        number = _highest(storage.names_in(self._folder(name), "SWEEP_DIR"))
        if number is None:
            return Look(0, {})
        content = _read(self._folder(name) / f"claim.{number}")
        holder, now = storage.record_of(content), self._clock()
        if holder.get("over") or storage.is_gone(holder):
            return Look(number + 1, holder)
        before = self._seen.get(name)
        if before is None or (before.number, before.content) != (number, content):
            # A change since a look of long ago says nothing of now.
            alive = before is not None and now - before.looked <= EXPIRY
            self._seen[name] = _Seen(number, content, now, now)
            return Look(None, holder, alive)
        before.looked, silent = now, now - before.since
        return Look(number + 1 if silent >= EXPIRY else None, holder, False, silent)

    def take(self, name: str) -> "Claim | None":
        """The claim, if the point can be had and no other worker was faster.

        Raises:
          UserError, RunError: the sweep's folder cannot be read or written.
        """
        found = self.look(name)
        if found.next is None:
            return None
        claim = Claim(self._folder(name), name, found.next, self.maker, self._lost, self._clock)
        return claim if claim.make() else None


class Claim:
    """One that this worker holds; see `Claims`."""

    def __init__(
        self,
        folder: Path,
        name: str,
        number: int,
        maker: Mapping[str, Any],
        lost: Callable[[str, str], None],
        clock: Callable[[], float],
    ) -> None:
        self.name, self._folder, self._number = name, folder, number
        self._lost, self._clock = lost, clock
        self._record: dict[str, Any] = {
            **storage.this_process(),
            **maker,
            "token": uuid.uuid4().hex,
            "beat": 0,
            "time": time.time(),  # for people: no clock decides
        }
        self._renewed = clock()
        self._over, self._beats = (
            threading.Event(),
            threading.Thread(target=self._keep, daemon=True),
        )

    def make(self) -> bool:
        """Whether this was the one that made it; from then on it is kept."""
        if not storage.create_once(self._path, self._content(), "SWEEP_DIR"):
            return False
        for name in storage.names_in(self._folder, "SWEEP_DIR"):
            if any(number < self._number for number in numbers({name})):
                storage.remove(self._folder / name)
        self._beats.start()
        return True

    def give_back(self) -> None:
        """Others need not wait for this worker; what cannot be said is found out by waiting."""
        self._over.set()
        self._beats.join()
        self._record["over"] = True
        with contextlib.suppress(RunError, UserError):
            if self._is_highest():
                storage.write_whole(self._path, self._content())

    def renew(self) -> str | None:
        """Writes it anew; why it is lost, or None.

        Raises:
          UserError, RunError: nothing could be read or written.
        """
        began = self._clock()
        if not self._is_highest():
            return "another worker has taken it over"
        self._record |= {"beat": self._record["beat"] + 1, "time": time.time()}
        storage.write_whole(self._path, self._content())
        self._renewed = began
        return None

    def late(self) -> bool:
        """Whether it was not renewed for so long that others may soon think it dead."""
        return self._clock() - self._renewed > EXPIRY - 3 * BEAT

    @property
    def _path(self) -> Path:
        return self._folder / f"claim.{self._number}"

    def _content(self) -> str:
        return json.dumps(self._record) + "\n"

    def _is_highest(self) -> bool:
        there = numbers(storage.names_in(self._folder, "SWEEP_DIR"))
        return max(there, default=self._number) <= self._number

    def _keep(self) -> None:
        while not self._over.wait(BEAT):
            try:
                why = storage.in_time(self.renew, _LIMIT)
            except (RunError, UserError, OSError) as error:
                why = f"it could not be kept ({error})" if self.late() else None
            if why is not None:
                self._lost(self.name, why)
                return


def numbers(names: set[str]) -> list[int]:
    """Of the claims among the names of files."""
    return [int(found[1]) for name in names if (found := _CLAIM.fullmatch(name))]


def _highest(names: set[str]) -> int | None:
    return max(numbers(names), default=None)


def _read(path: Path) -> bytes | None:
    with contextlib.suppress(UserError):  # a file that was replaced meanwhile, on NFS
        return storage.read_if_there(path, "SWEEP_DIR")
    return None


def _end(name: str, why: str) -> None:
    remark(
        f"the claim of {name} is lost: {why}; this worker ends, so that no two train one "
        "point. Start it again to go on."
    )
    os._exit(1)
