"""The open port of process 0, and who is let in."""

import contextlib
import errno
import ipaddress
import queue
import socket
import threading
import time
from typing import Any

from switchx.errors import UserError
from switchx.hosts.connection import Connection
from switchx.hosts.job import Job
from switchx.hosts.secret import admit

_ANSWER_SECONDS = 10.0  # in which whoever connects must prove to know the secret
_MOST_STRANGERS = 64


class Listener:
    """Accepts connections and hands on those of processes that know the job's secret.

    Each is asked in a thread of its own, so that one that says nothing keeps nobody waiting. Only
    so many are asked at a time: when one more comes, who was asked the longest ago is cut off.

    Attributes:
      on_every_interface: whether it listens on all of them; see `_addresses`.
      turned_away: connections that did not know the secret.
    """

    def __init__(self, job: Job, secret: str):
        addresses = _addresses(job)
        self.on_every_interface = addresses == [None]
        self.turned_away = 0
        self._secret, self._most = secret, job.count + _MOST_STRANGERS
        self._asked: list[Connection] = []
        self._lock = threading.Lock()
        self._admitted: queue.Queue[tuple[Connection, dict[str, Any]]] = queue.Queue()
        self._closed = threading.Event()
        self._servers = _listen(job, addresses)
        for server in self._servers:
            threading.Thread(target=self._accept, args=(server,), daemon=True).start()

    def next(self, timeout: float) -> tuple[Connection, dict[str, Any]] | None:
        """The next process of the job and the first message it sent; None after `timeout` s."""
        try:
            return self._admitted.get(timeout=max(timeout, 0.0))
        except queue.Empty:
            return None

    def close(self) -> None:
        """Ends it for all that were not handed on."""
        self._closed.set()
        with self._lock:
            for connection in self._asked:
                connection.close()
        for server in self._servers:
            server.close()

    def _accept(self, server: socket.socket) -> None:
        server.settimeout(0.2)  # closing a socket does not wake who waits for it
        while not self._closed.is_set():
            try:
                connection = Connection(server.accept()[0])
            except TimeoutError:
                continue
            except OSError:  # closed, or gone before it was accepted, or too many files are open
                time.sleep(0.05)
                continue
            with self._lock:
                if len(self._asked) >= self._most:
                    self._asked.pop(0).close()
                self._asked.append(connection)
            threading.Thread(target=self._ask, args=(connection,), daemon=True).start()

    def _ask(self, connection: Connection) -> None:
        message = None
        with contextlib.suppress(TimeoutError, ValueError):
            if admit(connection, self._secret, _ANSWER_SECONDS):
                message = connection.receive(_ANSWER_SECONDS)
        with self._lock:
            if connection in self._asked:
                self._asked.remove(connection)
            self.turned_away += message is None
        if message is None:
            connection.close()
        else:
            self._admitted.put((connection, message))


def _addresses(job: Job) -> list[str | None]:
    """What the coordinator's name stands for on this machine; [None] for every interface.

    Debian's /etc/hosts leads a machine's own name to 127.0.1.1, where no other machine can come:
    such a name says nothing of the interface.
    """
    try:
        found = socket.getaddrinfo(job.host, job.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise UserError(
            f"--coordinator_address={job.address}: the name {job.host} is not known here "
            f"({error.strerror}): name the machine of process 0 as all hosts know it."
        ) from None
    addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
    if all(_is_loopback(address) for address in addresses) and not _means_loopback(job.host):
        return [None]
    return list(addresses)


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def _means_loopback(host: str) -> bool:
    return host.startswith("127.") or host in ("localhost", "::1")


def _listen(job: Job, addresses: list[str | None]) -> list[socket.socket]:
    servers, errors = [], []
    for address in addresses:
        try:
            servers.append(_server(address, job.port, job.count + _MOST_STRANGERS))
        except OSError as error:
            errors.append(error)
    taken = [e for e in errors if e.errno != errno.EADDRNOTAVAIL]
    if servers and not taken:  # a machine without IPv6 has no ::1
        return servers
    for server in servers:
        server.close()
    if taken:
        raise UserError(
            f"--coordinator_address={job.address}: process 0 cannot listen on port {job.port} "
            f"({taken[0].strerror}): name a free port."
        )
    raise UserError(
        f"--coordinator_address={job.address} is not an address of this machine, where process 0 "
        "runs: name this one, or give --process_id=0 to the one named."
    )


def _server(address: str | None, port: int, backlog: int) -> socket.socket:
    if address is not None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return socket.create_server((address, port), family=family, backlog=backlog)
    if not socket.has_dualstack_ipv6():
        return socket.create_server(("", port), backlog=backlog)
    return socket.create_server(
        ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=backlog
    )


def free_port() -> int:
    """One on which nothing listens now."""
    with socket.create_server(("", 0)) as server:
        return int(server.getsockname()[1])
