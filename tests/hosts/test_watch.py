"""A process that is lost or fails is noticed by all others."""

import contextlib
import queue
import socket

import pytest

from switchx.hosts.watch import Watch
from tests.hosts.meetings import FACTS, meet_all


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


def hang_up(meeting):
    """As the kernel does for a process that is gone."""
    for connection in meeting.connections.values():
        with contextlib.suppress(OSError):  # the other end may be closed already
            connection._socket.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("lost", [0, 2])
def test_a_lost_process_is_named_to_all_others(lost):
    meetings, _, reports = watched(3, dead=lost)
    hang_up(meetings[lost])
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
        watch.finish()
        hang_up(meeting)
    with pytest.raises(queue.Empty):
        reports[0].get(timeout=0.3)
    assert all(report.empty() for report in reports)
