"""Jobs whose processes are threads of the test."""

import socket
from concurrent.futures import ThreadPoolExecutor

from switchx.errors import RunError, UserError
from switchx.hosts.connection import Connection
from switchx.hosts.job import Job
from switchx.hosts.meeting import meet

FACTS = {"configuration": "BATCH_SIZE = 8\nSEED = 0", "installation": "switchx abc"}


def secret():
    return "known to all of this job"


def free_address(host="localhost"):
    with socket.create_server(("", 0)) as server:
        return f"{host}:{server.getsockname()[1]}"


def pair():
    """Both ends of a connection."""
    with socket.create_server(("localhost", 0)) as server:
        there = socket.create_connection(server.getsockname())
        here, _ = server.accept()
    return Connection(here), Connection(there)


def meet_all(*processes, timeout=20.0, secrets=(secret,) * 9):
    """Each (index, count, facts) in a thread of its own; the meeting or the error of each."""
    address = free_address()

    def one(process, secret):
        index, count, facts = process
        try:
            return meet(Job(address, count, index), facts, timeout, secret)
        except (UserError, RunError) as error:
            return error

    with ThreadPoolExecutor(len(processes)) as pool:
        return list(pool.map(one, processes, secrets))
