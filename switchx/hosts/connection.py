"""A TCP connection that carries JSON objects, one on each line."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any

_MOST_BYTES = 1 << 20  # of a message: a configuration is a few thousand


class Connection:
    """One end; may be sent to from several threads and received from in one."""

    def __init__(self, connected: socket.socket):
        self._socket = connected
        self._buffer = b""
        self._sending = threading.Lock()
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # A machine that lost its power closes nothing: ask after 15 s, give up after 30 more.
        for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, name):
                connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def send(self, message: Mapping[str, Any]) -> None:
        """Sends; nothing happens where the other end is gone already."""
        with contextlib.suppress(OSError), self._sending:
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(
        self, timeout: float | None = None, most_bytes: int = _MOST_BYTES
    ) -> dict[str, Any] | None:
        """The next message; None where the other end is gone.

        Raises:
          TimeoutError: none came within `timeout` seconds.
          ValueError: what came is not a message, or is longer than `most_bytes`.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while b"\n" not in self._buffer:
            if len(self._buffer) > most_bytes:
                raise ValueError("too long a message")
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError
            try:
                self._socket.settimeout(left)
                part = self._socket.recv(1 << 12)
            except TimeoutError:
                raise
            except OSError:
                return None
            if not part:
                return None
            self._buffer += part
        text, _, self._buffer = self._buffer.partition(b"\n")
        try:
            message = json.loads(text)
        except RecursionError:
            raise ValueError("nested too deeply") from None
        if not isinstance(message, dict):
            raise ValueError("not an object")
        return message

    def close(self) -> None:
        """Ends it, also for a thread that is receiving."""
        with contextlib.suppress(OSError):  # the other end was faster
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
