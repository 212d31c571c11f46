"""Notices when another process of the job stops or is gone.

Where one ends without a word, the kernel closes its connections, and the others learn of it at
once, on any platform, even while they wait for it in a collective.
"""

import threading
from collections.abc import Callable, Mapping
from typing import Any

from switchx.hosts.meeting import Meeting


class Watch:
    """Listens on the connections of a meeting until the processes part.

    Args:
      on_end: called in a thread of its own with a sentence and an exit status, once, where
        another process stopped or is gone.
    """

    def __init__(self, meeting: Meeting, on_end: Callable[[str, int], None]):
        self._connections = dict(meeting.connections)
        self._on_end = on_end
        self._over = threading.Lock()
        self._parting = False
        for number in self._connections:
            threading.Thread(target=self._listen, args=(number,), daemon=True).start()

    def finish(self) -> None:
        """This process has ended well: the others need not wonder."""
        self._parting = True
        self._tell({"bye": True})

    def fail(self, message: str, status: int) -> None:
        """This process stops; the others will end with the same status."""
        self._parting = True
        self._tell({"stop": message, "status": status})

    def _tell(self, message: Mapping[str, Any]) -> None:
        for connection in self._connections.values():
            connection.send(message)

    def _listen(self, number: int) -> None:
        try:
            message = self._connections[number].receive()
        except ValueError:
            message = None
        if message is not None and "bye" in message:
            return
        if message is None:
            text, status = f"process {number} was lost", 1
        else:
            text, status = str(message.get("stop", "")), int(message.get("status", 1))
            text = text if text.startswith("process ") else f"process {number} stopped: {text}"
        if self._parting or not self._over.acquire(blocking=False):
            return
        self._tell({"stop": text, "status": status})
        self._on_end(text, status)
