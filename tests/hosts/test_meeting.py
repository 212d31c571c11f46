"""Processes meet and agree, or each of them says why not."""

import socket
import time

import pytest

from switchx.errors import RunError, UserError
from switchx.hosts.job import Job
from switchx.hosts.meeting import meet
from tests.hosts.meetings import FACTS, free_address, meet_all, secret


def test_all_meet_in_any_order():
    meetings = meet_all((2, 3, FACTS), (0, 3, FACTS), (1, 3, FACTS))
    assert len({(meeting.address, meeting.token) for meeting in meetings}) == 1
    assert [sorted(meeting.connections) for meeting in meetings] == [[0], [1, 2], [0]]
    assert meetings[1].bind_address == meetings[0].address  # and not every interface


def test_a_missing_process_is_named_in_time():
    began = time.monotonic()
    errors = meet_all((0, 4, FACTS), (2, 4, FACTS), timeout=1.0)
    assert time.monotonic() - began < 10
    for error in errors:
        assert isinstance(error, RunError)
        assert "processes 1, 3 did not start within 1 s" in str(error)


def test_who_found_the_job_in_the_environment_learns_which_variables_and_how_to_run_alone():
    job = Job(free_address(), 2, 1, found_in="SLURM_NTASKS=2, SLURM_PROCID=1")
    with pytest.raises(RunError) as error:
        meet(job, FACTS, 0.5, secret)
    assert "SLURM_NTASKS=2, SLURM_PROCID=1 in the environment make 2 processes" in str(error.value)
    assert "process 0 does not answer at localhost" in str(error.value)
    assert "--num_processes=1" in str(error.value)


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
        with pytest.raises(UserError, match=r"cannot listen on port .* name a free port"):
            meet(Job(address, 2, 0), FACTS, 5.0, secret)


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("192.0.2.7", "is not an address of this machine, where process 0 runs"),  # RFC 5737
        ("no-such-host.invalid", "the name no-such-host.invalid is not known here"),
    ],
)
def test_process_0_listens_on_the_coordinators_address_alone(host, says):
    with pytest.raises(UserError, match=says):
        meet(Job(f"{host}:8476", 2, 0), FACTS, 5.0, secret)


def test_a_name_that_debian_leads_to_loopback_says_nothing_of_the_interface(monkeypatch):
    own = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.1.1", 8476))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: own)
    from switchx.hosts.listening import _addresses

    assert _addresses(Job("node003:8476", 2, 0)) == [None]
    assert _addresses(Job("localhost:8476", 2, 0)) == ["127.0.1.1"]
