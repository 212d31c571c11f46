"""Processes meet, or each of them says why not; one that is lost is noticed by all."""

import contextlib
import json
import queue
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from switchx.errors import RunError, UserError
from switchx.hosts.job import Job
from switchx.hosts.meeting import Watch, meet

FACTS = {"configuration": "BATCH_SIZE = 8\nSEED = 0", "installation": "switchx abc"}


def free_address():
    with socket.create_server(("", 0)) as server:
        return f"localhost:{server.getsockname()[1]}"


def meet_all(*processes, timeout=20.0):
    """Each (index, count, facts) in a thread of its own; the meeting or the error of each."""
    address = free_address()

    def one(process):
        index, count, facts = process
        try:
            return meet(Job(address, count, index), facts, timeout)
        except (UserError, RunError) as error:
            return error

    with ThreadPoolExecutor(len(processes)) as pool:
        return list(pool.map(one, processes))


def test_all_meet_in_any_order():
    meetings = meet_all((2, 3, FACTS), (0, 3, FACTS), (1, 3, FACTS))
    assert len({(meeting.address, meeting.token) for meeting in meetings}) == 1
    assert [sorted(meeting.lines) for meeting in meetings] == [[0], [1, 2], [0]]


def test_a_missing_process_is_named_in_time():
    began = time.monotonic()
    errors = meet_all((0, 4, FACTS), (2, 4, FACTS), timeout=1.5)
    assert time.monotonic() - began < 10
    for error in errors:
        assert isinstance(error, RunError)
        assert "processes 1, 3 of 4 did not start within 1.5 s" in str(error)


def test_without_process_0_the_others_say_so_in_time():
    (error,) = meet_all((1, 2, FACTS), timeout=1.0)
    assert isinstance(error, RunError)
    assert "process 0 does not answer at localhost" in str(error)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ((1, 3, FACTS), "process 1 was started with --num_processes=3 and process 0 with 2"),
        (
            (1, 2, FACTS | {"configuration": "BATCH_SIZE = 16\nSEED = 0"}),
            "process 1 has another configuration than process 0, 'BATCH_SIZE = 16' and not "
            "'BATCH_SIZE = 8'",
        ),
        ((1, 2, FACTS | {"installation": "switchx def"}), "another installation .* 'switchx def'"),
    ],
)
def test_a_difference_is_named_by_every_process(other, says):
    for error in meet_all((0, 2, FACTS), other):
        with pytest.raises(UserError, match=says):
            raise error


def test_a_number_given_twice_is_named():
    errors = meet_all((0, 3, FACTS), (1, 3, FACTS), (1, 3, FACTS))
    assert any("--process_id=1 was given to two processes" in str(error) for error in errors)
    assert all(isinstance(error, UserError) for error in errors)


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("", 0)) as server:
        address = f"localhost:{server.getsockname()[1]}"
        with pytest.raises(UserError, match="cannot listen on port"):
            meet(Job(address, 2, 0), FACTS, 5.0)


@pytest.mark.parametrize(
    "noise", [b"", b"GET / HTTP/1.1\r\n\r\n", b"[1]\n", b'{"index": "x"}\n', b"\xff\xfe\n"]
)
def test_strangers_are_let_go(noise):
    address = free_address()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(meet, Job(address, 2, 0), FACTS, 20.0)
        stranger = connect(address)
        stranger.sendall(noise)
        stranger.close()
        pool.submit(meet, Job(address, 2, 1), FACTS, 20.0).result()
        assert sorted(first.result().lines) == [1]


def connect(address):
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection((host, int(port)))
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def watched(count, dead=None):
    """The meetings of `count` processes, and for each a queue of what its watch reported.

    `dead` has no watch: a killed process tells nobody anything.
    """
    meetings = meet_all(*((index, count, FACTS) for index in range(count)))
    reports = [queue.Queue() for _ in meetings]
    watches = [
        Watch(meeting, lambda text, status, q=q: q.put((text, status)))
        for index, (meeting, q) in enumerate(zip(meetings, reports, strict=True))
        if index != dead
    ]
    return meetings, watches, reports


@pytest.mark.parametrize("lost", [0, 2])
def test_a_lost_process_is_named_to_all_others(lost):
    meetings, _, reports = watched(3, dead=lost)
    for line in meetings[lost].lines.values():
        line._socket.shutdown(socket.SHUT_RDWR)  # as the kernel does for a killed process
    for index in {0, 1, 2} - {lost}:
        assert reports[index].get(timeout=10) == (f"process {lost} was lost", 1)


def test_a_process_that_fails_says_why_to_all():
    _, watches, reports = watched(3)
    watches[1].fail("TRAIN_STEPS is wrong", 2)
    expected = ("process 1 stopped: TRAIN_STEPS is wrong", 2)
    assert [reports[index].get(timeout=10) for index in (0, 2)] == [expected] * 2
    assert reports[1].empty()


def test_processes_part_in_peace_one_after_the_other():
    meetings, watches, reports = watched(3)
    for meeting, watch in zip(meetings, watches, strict=True):
        watch.part()
        for line in meeting.lines.values():
            with contextlib.suppress(OSError):  # the other end may be closed already
                line._socket.shutdown(socket.SHUT_RDWR)
        time.sleep(0.3)
        assert all(report.empty() for report in reports)


def test_a_message_is_a_line_of_json():
    address = free_address()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(meet, Job(address, 3, 0), FACTS, 2.0)
        stranger = connect(address)
        stranger.sendall(json.dumps({"index": 1, "count": 3, "facts": FACTS}).encode() + b"\n")
        reply = json.loads(stranger.makefile().readline())
    assert reply["kind"] == "run"
    assert "process 2 of 3 did not start" in reply["error"]
    assert isinstance(first.exception(), RunError)
