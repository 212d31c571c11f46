"""How the processes of a job find each other and agree.

JAX's own start ends a process with a C++ stack trace where another is missing or differs, and
does not say which. So the processes first meet here, over plain TCP, and stay connected: process 0
to every other.
"""

import dataclasses
import secrets
import socket
import time
from collections.abc import Mapping

from switchx.errors import RunError, UserError
from switchx.hosts.connection import Connection
from switchx.hosts.job import Job
from switchx.hosts.listening import Listener, free_port
from switchx.hosts.secret import VARIABLE, Secret, join
from switchx.terminal import counted

_ANSWER_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class Meeting:
    """All processes met.

    Attributes:
      connections: of process 0 to all others, or the one to it, by the number at the other end.
      address: at which JAX's own service may listen, on the machine of process 0.
      bind_address: the address it listens on; None for every interface of that machine.
      token: a word that all processes know.
    """

    connections: dict[int, Connection]
    address: str
    bind_address: str | None
    token: str


def meet(job: Job, facts: Mapping[str, str], timeout: float, secret: Secret) -> Meeting:
    """Waits until all processes of the job are there and agree.

    Args:
      facts: what all must have in common, by name: versions, configuration. Long texts are
        compared line by line.
      timeout: seconds.
      secret: gives what only the job's processes know; process 0 must know it at once.

    Raises:
      UserError: two differ, or numbers are wrong. Every process that is there raises the same.
      RunError: one did not come in time.
    """
    deadline = time.monotonic() + timeout
    if job.index == 0:
        return _Host0(job, facts, deadline, timeout).meet(secret)
    return _meet_host0(job, facts, deadline, timeout, secret)


class _Host0:
    """Process 0 of a job, while it waits for the others."""

    def __init__(self, job: Job, facts: Mapping[str, str], deadline: float, timeout: float):
        self._job, self._facts = job, facts
        self._deadline, self._timeout = deadline, timeout
        self._connections: dict[int, Connection] = {}

    def meet(self, secret: Secret) -> Meeting:
        known = secret()
        assert known is not None
        listener = Listener(self._job, known)
        try:
            while len(self._connections) < self._job.count - 1:
                self._admit_next(listener)
        except (UserError, RunError) as error:
            kind = "user" if isinstance(error, UserError) else "run"
            for connection in self._connections.values():
                connection.send({"error": str(error), "kind": kind})
            raise
        finally:
            listener.close()
        address = f"{self._job.address.rpartition(':')[0]}:{free_port()}"
        token = secrets.token_hex(8)
        for connection in self._connections.values():
            connection.send({"address": address, "token": token})
        bind_address = None if listener.on_every_interface else address
        return Meeting(self._connections, address, bind_address, token)

    def _admit_next(self, listener: Listener) -> None:
        """Takes the next process in, or raises what is wrong with it."""
        found = listener.next(self._deadline - time.monotonic())
        if found is None:
            raise self._missing(listener.turned_away)
        connection, hello = found
        try:
            index, count = int(hello["index"]), int(hello["count"])
            facts = {str(name): str(value) for name, value in hello["facts"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(
                "a process of this job says what this version of switchx does not understand: "
                "install the same version on every host."
            ) from None
        taken = index == 0 or index in self._connections
        if not taken:
            self._connections[index] = connection
        try:
            self._check(index, count, taken, facts)
        except UserError as error:
            connection.send({"error": str(error), "kind": "user"})
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

    def _missing(self, turned_away: int) -> RunError:
        missing = [i for i in range(1, self._job.count) if i not in self._connections]
        strangers = (
            f"; {counted(turned_away, 'connection')} did not know its secret" if turned_away else ""
        )
        return RunError(
            f"{self._job.reason}, and {_processes(missing)} did not start within "
            f"{self._timeout:g} s{strangers}: start the same command on every host, or "
            f"{self._job.remedy}."
        )


def _meet_host0(
    job: Job, facts: Mapping[str, str], deadline: float, timeout: float, secret: Secret
) -> Meeting:
    connection = _join(job, deadline, timeout, secret)
    connection.send({"index": job.index, "count": job.count, "facts": dict(facts)})
    try:
        # Process 0 tells who is missing at its own deadline, which may be a little after ours.
        left = max(deadline - time.monotonic(), 0.0)
        reply = connection.receive(left + timeout + _ANSWER_SECONDS)
    except (TimeoutError, ValueError):
        raise _silent(job, timeout) from None
    if reply is None:
        raise RunError("process 0 ended while the hosts were starting; its own output says why.")
    if "error" in reply:
        raise (UserError if reply.get("kind") == "user" else RunError)(str(reply["error"]))
    return Meeting({0: connection}, str(reply["address"]), None, str(reply["token"]))


def _join(job: Job, deadline: float, timeout: float, secret: Secret) -> Connection:
    """A connection to process 0, which knows the job's secret and was shown that we do."""
    reason = _silent(job, timeout)
    while (left := deadline - time.monotonic()) > 0:
        known = secret()
        try:
            if known is not None:
                connected = socket.create_connection((job.host, job.port), timeout=min(left, 5.0))
                connection = Connection(connected)
                if join(connection, known, min(left, _ANSWER_SECONDS)):
                    return connection
                connection.close()
            reason = _no_secret(job, timeout)
        except (OSError, ValueError):  # nobody is there yet, or somebody else
            pass
        time.sleep(min(0.3, max(deadline - time.monotonic(), 0.0)))
    raise reason


def _silent(job: Job, timeout: float) -> RunError:
    return RunError(
        f"{job.reason}, and process 0 does not answer at {job.address} within {timeout:g} s: start "
        f"the same command on every host, or {job.remedy}."
    )


def _no_secret(job: Job, timeout: float) -> RunError:
    return RunError(
        f"{job.reason}, and process 0 at {job.address} and this process do not know the same "
        f"secret after {timeout:g} s: set {VARIABLE} to the same value on every host, name a "
        f"MODEL_DIR that all hosts share, or {job.remedy}."
    )


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
