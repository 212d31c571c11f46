"""A lock where files cannot be locked: an object that its holder renews while it lives.

The holder writes the object anew every `BEAT` seconds. Whoever wants it watches it: a change says
that its holder lives, no change for `EXPIRY` seconds that it does not. Every write depends on what
was there, so that of several only one succeeds; no clock is compared with another machine's. A
holder that could not renew it for as long ends itself, before another may begin.
"""

import contextlib
import json
import os
import threading
import time
import uuid
from collections.abc import Iterator

from switchx.errors import RunError, UserError
from switchx.storage.conditional import ConditionalObject, Version, check_conditional
from switchx.storage.holders import InUseError, is_gone, record_of, this_process
from switchx.storage.paths import AnyPath
from switchx.storage.trouble import explain, explain_missing_bucket
from switchx.terminal import remark

BEAT = 10.0  # seconds; also how long one renewal may take
EXPIRY = 120.0


@contextlib.contextmanager
def lease(path: AnyPath, what: str, holder: str) -> Iterator[None]:
    """Within, no other process holds the lease; of `exclusive_lock`, at gs:// and s3://.

    Where it is lost on the way (nothing could be renewed for `EXPIRY` seconds, or another process
    took it meanwhile) this process says so and ends with status 1.

    Raises:
      InUseError: another process holds it.
      UserError: the place cannot be written to.
    """
    setting = what.partition("=")[0]
    check_conditional(path, setting)
    try:
        it = _Lease(path, what)
        it.take(holder)
    except OSError as error:
        raise UserError(
            f"{what} cannot be written to ({explain(error)}): see to it, or name another place."
        ) from error
    beats = threading.Thread(target=it.keep, daemon=True)
    beats.start()
    try:
        yield
    finally:
        it.over.set()
        beats.join()
        it.give_back()


class _Lease:
    def __init__(self, path: AnyPath, what: str) -> None:
        self.over = threading.Event()
        self._what = what
        self._object = ConditionalObject(path)
        self._token, self._beat = uuid.uuid4().hex, 0
        self._held: Version | None = None
        self._renewed = 0.0

    def take(self, holder: str) -> None:
        """Returns once it is held; UserError where its holder lives."""
        for _ in range(3):
            there = self._object.read()
            if there.content is not None and not is_gone(record_of(there.content)):
                there = self._watched(there, holder)
            self._held = self._write(there)
            if self._held is not None:
                self._object.seconds = BEAT
                return
            there = self._object.read()
            if there.content is not None:
                raise self._refusal(holder, _name_of(there))
        # S3 says no more than that nothing is there, and that it was not written.
        raise OSError(explain_missing_bucket(self._object.url))

    def keep(self) -> None:
        """Renews it until `over`; ends the process where it is lost."""
        while not self.over.wait(BEAT):
            try:
                self.renew()
            except OSError as error:
                # There is no time for another wait and another try.
                if time.monotonic() - self._renewed > EXPIRY - 3 * BEAT:
                    _end(f"{self._what} could not be kept ({explain(error)})")
            except RunError as error:
                _end(str(error))

    def renew(self) -> None:
        """Writes it anew; RunError where another process has it."""
        assert self._held is not None
        held = self._write(self._held)
        if held is None:
            raise RunError(f"{self._what} was taken over by {_name_of(self._object.read())}")
        self._held = held

    def give_back(self) -> None:
        """Removes it, so that the next process need not wait; what is lost meanwhile stays."""
        if self._held is not None:
            with contextlib.suppress(OSError):
                self._object.replace(None, self._held)

    def _write(self, there: Version) -> Version | None:
        """The version that was written; None if another process was first."""
        self._beat += 1
        record = {**this_process(), "token": self._token, "beat": self._beat}
        content, began = json.dumps(record).encode(), time.monotonic()
        held = self._object.replace(content, there)
        if held is None:
            # The answer to an earlier try may have been lost on the way.
            found = self._object.read()
            held = found if found.content == content else None
        if held is not None:
            self._renewed = began
        return held

    def _watched(self, there: Version, holder: str) -> Version:
        """What is left of a holder that does not renew it."""
        name, began = _name_of(there), time.monotonic()
        remark(
            f"{self._what} was in use by process {name}; watching for up to "
            f"{EXPIRY:.0f} s whether it still is"
        )
        while time.monotonic() - began < EXPIRY:
            time.sleep(BEAT / 4)
            now = self._object.read()
            if now.content is None:
                return now
            if now.content != there.content:
                raise self._refusal(holder, name)
        return there

    def _refusal(self, holder: str, name: str) -> InUseError:
        return InUseError(
            f"{self._what} is in use by another {holder}, process {name}: wait for its end, or "
            "name another one."
        )


def _name_of(there: Version) -> str:
    return str(record_of(there.content).get("process", "unknown"))


def _end(why: str) -> None:
    remark(f"{why}; this process ends, so that no two write there. Start it again to go on.")
    os._exit(1)
