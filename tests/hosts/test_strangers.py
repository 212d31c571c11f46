"""Who does not know the job's secret is told nothing, is not believed, and keeps nobody waiting."""

import contextlib
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from switchx.errors import RunError, UserError
from switchx.hosts import listening
from switchx.hosts.job import Job
from switchx.hosts.meeting import meet
from switchx.hosts.secret import VARIABLE, admit, check_secret, join
from tests.hosts.meetings import FACTS, free_address, meet_all, pair, secret


def connect(address):
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection((host, int(port)), timeout=10)
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


HELLO = json.dumps({"index": 1, "count": 2, "facts": FACTS}).encode() + b"\n"
PROOF = json.dumps({"challenge": "0" * 32, "proof": "0" * 64}).encode() + b"\n"


@contextlib.contextmanager
def meeting_of_two():
    """The address, process 0's meeting (a future), and a function by which process 1 comes."""
    address = free_address()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(meet, Job(address, 2, 0), FACTS, 20.0, secret)
        yield address, first, lambda: meet(Job(address, 2, 1), FACTS, 20.0, secret)


def test_noise_neither_ends_nor_delays_the_meeting():
    began = time.monotonic()
    with meeting_of_two() as (address, first, come):
        strangers = [connect(address) for _ in range(9)]
        noise = [b"", b"GET / HTTP/1.1\r\n\r\n", b"[1]\n", b'{"proof": 5}\n', b"\xff\xfe\n"]
        noise += [HELLO, PROOF + HELLO, b"x" * (1 << 16), b'{"a":' * 200 + b"\n"]
        for stranger, sent in zip(strangers, noise, strict=True):
            with contextlib.suppress(OSError):  # may be cut off while it speaks
                stranger.sendall(sent)
        assert sorted(come().connections) == [0]
        assert sorted(first.result().connections) == [1]
    # Nine that never say another word, each of which may take ten seconds to answer.
    assert time.monotonic() - began < 5
    for stranger in strangers:
        stranger.close()


def test_a_stranger_is_challenged_and_told_nothing_else():
    with meeting_of_two() as (address, first, come):
        stranger = connect(address)
        stranger.sendall(PROOF + HELLO)
        with stranger.makefile() as said:
            assert json.loads(said.readline()).keys() == {"challenge"}
            assert said.readline() == ""
        come()
        first.result()


def test_more_strangers_than_are_asked_at_a_time_make_room(monkeypatch):
    monkeypatch.setattr(listening, "_MOST_STRANGERS", 3)  # and the job's two
    with meeting_of_two() as (address, first, come):
        strangers = [connect(address) for _ in range(8)]
        gone = strangers[0].makefile()
        assert json.loads(gone.readline()).keys() == {"challenge"}
        assert gone.readline() == ""  # the one that was asked the longest ago is cut off
        come()
        first.result()
        for stranger in strangers:
            stranger.close()


def test_both_must_know_the_secret():
    """Who listens in process 0's place learns nothing of the configuration."""
    for theirs in ("a" * 16, "b" * 16):
        here, there = pair()
        with ThreadPoolExecutor(1) as pool:
            joining = pool.submit(join, there, theirs, 5.0)
            admitted = admit(here, "a" * 16, 5.0)
            here.close()
        assert (admitted, joining.result()) == (theirs == "a" * 16,) * 2


def test_a_proof_that_is_sent_back_proves_nothing():
    """One who knows nothing lets process 1 answer the challenge of process 0's kind of message."""
    here, there = pair()
    with ThreadPoolExecutor(1) as pool:
        joining = pool.submit(join, there, "a" * 16, 5.0)
        here.send({"challenge": "0" * 32})
        here.send({"proof": here.receive(5.0)["proof"]})
    assert joining.result() is False


def test_another_secret_is_named_by_both_sides():
    first, second = meet_all(
        (0, 2, FACTS), (1, 2, FACTS), timeout=1.0, secrets=(secret, lambda: "of another job")
    )
    assert isinstance(first, RunError)
    assert "did not know its secret" in str(first)
    assert isinstance(second, RunError)
    assert VARIABLE in str(second)
    assert "MODEL_DIR that all hosts share" in str(second)


def test_a_secret_of_an_earlier_job_is_asked_for_again():
    stale = iter([None, "of an earlier job"])
    first, second = meet_all(
        (0, 2, FACTS), (1, 2, FACTS), secrets=(secret, lambda: next(stale, secret()))
    )
    assert first.token == second.token


def test_a_secret_that_can_be_guessed_is_refused_and_not_printed():
    with pytest.raises(UserError, match="has 5 characters") as error:
        check_secret("12345")
    assert "12345" not in str(error.value)
