"""How the processes of a job find each other, agree, and notice when one of them is gone.

JAX's own start ends a process with a C++ stack trace where another is missing or differs, and
does not say which. So the processes first meet here, over plain TCP with a JSON line each, and
stay connected: process 0 holds a line to every other. Where one ends without a word, the kernel
closes its line, and the others learn of it at once, on any platform, even while they wait for it
in a collective.
"""

import dataclasses
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from switchx.errors import RunError, UserError
from switchx.hosts.job import Job

_MOST_BYTES = 1 << 20  # of a line: a configuration is a few thousand
_HELLO_SECONDS = 10.0


class Line:
    """A connection that carries JSON objects, one on each line."""

    def __init__(self, connection: socket.socket):
        self._socket = connection
        self._buffer = b""
        self._sending = threading.Lock()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # A machine that lost its power closes nothing: ask after 15 s, give up after 30 more.
        for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def send(self, message: Mapping[str, Any]) -> None:
        """Sends; a line that is gone already takes nothing and says nothing."""
        try:
            with self._sending:
                self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            pass

    def receive(self, timeout: float | None = None) -> dict[str, Any] | None:
        """The next message; None where the other end is gone.

        Raises:
          TimeoutError: none came within `timeout` seconds.
          ValueError: what came is not a message.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while b"\n" not in self._buffer:
            if len(self._buffer) > _MOST_BYTES:
                raise ValueError("too long a line")
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            try:
                part = self._socket.recv(1 << 16)
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
            raise ValueError("not a message")
        return message

    def close(self) -> None:
        self._socket.close()


@dataclasses.dataclass(frozen=True)
class Meeting:
    """All processes met: the lines of process 0 to the others by number, or the one line to it.

    Attributes:
      lines: by the number of the process at the other end.
      address: at which JAX's own service may listen, on the machine of process 0.
      token: a word that all processes know.
    """

    lines: dict[int, Line]
    address: str
    token: str


def meet(job: Job, facts: Mapping[str, str], timeout: float) -> Meeting:
    """Waits until all processes of the job are there and agree.

    Args:
      facts: what all must have in common, by name: versions, configuration. Long texts are
        compared line by line.
      timeout: seconds.

    Raises:
      UserError: two differ, or numbers are wrong. Every process that is there raises the same.
      RunError: one did not come in time.
    """
    deadline = time.monotonic() + timeout
    if job.index == 0:
        return _Host0(job, facts, deadline, timeout).meet()
    return _meet_host0(job, facts, deadline, timeout)


class _Host0:
    """Process 0 of a job, while it waits for the others."""

    def __init__(self, job: Job, facts: Mapping[str, str], deadline: float, timeout: float):
        self._job, self._facts = job, facts
        self._deadline, self._timeout = deadline, timeout
        self._lines: dict[int, Line] = {}

    def meet(self) -> Meeting:
        with _listen(self._job) as server:
            try:
                while len(self._lines) < self._job.count - 1:
                    self._admit(self._accept(server))
            except (UserError, RunError) as error:
                kind = "user" if isinstance(error, UserError) else "run"
                for line in self._lines.values():
                    line.send({"error": str(error), "kind": kind})
                raise
        address = f"{self._job.address.rpartition(':')[0]}:{_free_port()}"
        token = secrets.token_hex(8)
        for line in self._lines.values():
            line.send({"address": address, "token": token})
        return Meeting(self._lines, address, token)

    def _accept(self, server: socket.socket) -> Line:
        server.settimeout(max(self._deadline - time.monotonic(), 0.001))
        try:
            return Line(server.accept()[0])
        except TimeoutError:
            missing = [i for i in range(1, self._job.count) if i not in self._lines]
            raise RunError(
                f"{_processes(missing)} of {self._job.count} did not start within "
                f"{self._timeout:g} s: start the same command on every host, or correct "
                "--num_processes."
            ) from None

    def _admit(self, line: Line) -> None:
        """Takes a process in, or raises what is wrong with it; a stranger is just let go."""
        left = max(self._deadline - time.monotonic(), 0.001)
        try:
            hello = line.receive(min(left, _HELLO_SECONDS)) or {}
            index, count = int(hello["index"]), int(hello["count"])
            facts = {str(name): str(value) for name, value in hello["facts"].items()}
        except (TimeoutError, ValueError, KeyError, TypeError, AttributeError):
            line.close()
            return
        taken = index == 0 or index in self._lines
        if not taken:
            self._lines[index] = line
        try:
            self._check(index, count, taken, facts)
        except UserError as error:
            line.send({"error": str(error), "kind": "user"})
            raise

    def _check(self, index: int, count: int, taken: bool, facts: Mapping[str, str]) -> None:
        if count != self._job.count:
            raise UserError(
                f"process {index} was started with --num_processes={count} and process 0 with "
                f"{self._job.count}: give every host the same number."
            )
        if taken or not 0 <= index < self._job.count:
            raise UserError(
                f"--process_id={index} was given to two processes: number them from 0 to "
                f"{count - 1}."
            )
        difference = _difference(index, facts, self._facts)
        if difference:
            raise UserError(difference)


def _meet_host0(job: Job, facts: Mapping[str, str], deadline: float, timeout: float) -> Meeting:
    silent = RunError(
        f"process 0 does not answer at {job.address} within {timeout:g} s: start the same command "
        "on every host, or correct --coordinator_address."
    )
    line = Line(_connect(job, deadline, silent))
    line.send({"index": job.index, "count": job.count, "facts": dict(facts)})
    try:
        # Process 0 tells who is missing at its own deadline, which may be a little after ours.
        reply = line.receive(max(deadline - time.monotonic(), 0.0) + timeout + _HELLO_SECONDS)
    except (TimeoutError, ValueError):
        raise silent from None
    if reply is None:
        raise RunError("process 0 ended while the hosts were starting; its own output says why.")
    if "error" in reply:
        raise (UserError if reply.get("kind") == "user" else RunError)(str(reply["error"]))
    return Meeting({0: line}, str(reply["address"]), str(reply["token"]))


def _connect(job: Job, deadline: float, silent: RunError) -> socket.socket:
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise silent
        try:
            return socket.create_connection((job.host, job.port), timeout=min(left, 5.0))
        except OSError:
            time.sleep(min(0.3, left))


def _listen(job: Job) -> socket.socket:
    try:
        return socket.create_server(
            ("", job.port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=job.count
        )
    except OSError:
        pass  # no IPv6, or the port is taken: the same without it tells which
    try:
        return socket.create_server(("", job.port), backlog=job.count)
    except OSError as error:
        raise UserError(
            f"--coordinator_address={job.address}: process 0 cannot listen on port {job.port} "
            f"({error.strerror}); name a free port."
        ) from None


def _free_port() -> int:
    with socket.create_server(("", 0)) as server:
        return int(server.getsockname()[1])


def _processes(numbers: list[int]) -> str:
    return f"process{'es' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def _difference(index: int, theirs: Mapping[str, str], ours: Mapping[str, str]) -> str | None:
    """One sentence on the first fact that another process does not share; None if it does."""
    for name in sorted({*theirs, *ours}):
        there, here = theirs.get(name, ""), ours.get(name, "")
        if there == here:
            continue
        there, here = _first_different_lines(there, here)
        return (
            f"process {index} has another {name} than process 0, {there!r} and not {here!r}: "
            "start the same command, of the same installation, on every host."
        )
    return None


def _first_different_lines(a: str, b: str) -> tuple[str, str]:
    """The first line of each that the other does not have."""
    a_lines, b_lines = a.splitlines(), b.splitlines()
    only_a = [line for line in a_lines if line not in b_lines]
    only_b = [line for line in b_lines if line not in a_lines]
    return (only_a or ["nothing"])[0], (only_b or ["nothing"])[0]


class Watch:
    """Listens on the lines of a meeting until the processes part.

    Args:
      on_end: called in a thread of its own with a sentence and an exit status, once, where
        another process stopped or is gone.
    """

    def __init__(self, meeting: Meeting, on_end: Callable[[str, int], None]):
        self._lines = dict(meeting.lines)
        self._on_end = on_end
        self._over = threading.Lock()
        self._parting = False
        for number in self._lines:
            threading.Thread(target=self._listen, args=(number,), daemon=True).start()

    def part(self) -> None:
        """This process has ended well: the others need not wonder."""
        self._parting = True
        self._tell({"bye": True})

    def fail(self, message: str, status: int) -> None:
        """This process stops; the others will end with the same status."""
        self._parting = True
        self._tell({"stop": message, "status": status})

    def _tell(self, message: Mapping[str, Any]) -> None:
        for line in self._lines.values():
            line.send(message)

    def _listen(self, number: int) -> None:
        try:
            message = self._lines[number].receive()
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
