"""One worker at a time has a point: on a disk and in a bucket, by clocks that the tests turn."""

import json
import subprocess
import sys
import threading

import pytest

from switchx import storage
from switchx.errors import RunError
from switchx.sweeps import claims
from switchx.sweeps.claims import BEAT, EXPIRY, Claims


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def worker(clock):
    """Makes workers, whose claims are given back at the end."""
    made = []

    def make(folder, **options):
        own = Claims(lambda name: storage.as_path(folder) / name, {}, clock=clock, **options)
        take = own.take

        def taken(name):
            claim = take(name)
            made.extend([claim] if claim else [])
            return claim

        own.take = taken
        return own

    yield make
    for claim in made:
        claim._over.set()


@pytest.fixture(params=["disk", "bucket"])
def folder(request, tmp_path):
    return str(tmp_path) if request.param == "disk" else request.getfixturevalue("gs").folder()


def elsewhere(folder, name):
    """Makes the highest claim that of a process of another machine."""
    place = storage.as_path(folder) / name
    number = max(claims.numbers(storage.names_in(place, "X")))
    record = json.loads(storage.read_bytes(place / f"claim.{number}", "X"))
    storage.write_whole(place / f"claim.{number}", json.dumps({**record, "place": "another"}))


def test_a_point_is_had_by_one_until_it_is_given_back(folder, worker):
    first, second = worker(folder), worker(folder)
    claim = first.take("a")
    assert second.take("a") is None
    assert second.take("b") is not None
    assert second.look("a").holder["process"] == storage.this_process()["process"]
    claim.give_back()
    assert second.take("a") is not None
    assert first.take("a") is None


def test_a_silent_claim_is_taken_over_by_exactly_one(folder, worker, clock):
    worker(folder).take("a")
    elsewhere(folder, "a")
    others = [worker(folder) for _ in range(5)]
    assert [other.take("a") for other in others] == [None] * 5
    clock.now += EXPIRY - 1
    assert [other.take("a") for other in others] == [None] * 5
    clock.now += 1
    together, got = threading.Barrier(5), []

    def take(other):
        together.wait()
        got.extend(claim for claim in [other.take("a")] if claim)

    threads = [threading.Thread(target=take, args=(other,)) for other in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1
    assert got[0].renew() is None


def test_one_that_is_written_anew_lives(folder, worker, clock):
    claim = worker(folder).take("a")
    other = worker(folder)
    assert not other.look("a").alive
    for _ in range(40):
        clock.now += BEAT
        assert claim.renew() is None
        found = other.look("a")
        assert (found.next, found.alive) == (None, True)
    clock.now += BEAT
    found = other.look("a")
    assert (found.next, found.alive, found.silent) == (None, False, BEAT)
    clock.now += 10 * EXPIRY
    assert claim.renew() is None
    assert not other.look("a").alive  # it may have died since: it was last looked at long ago


def test_who_was_taken_over_learns_of_it(folder, worker, clock):
    claim = worker(folder).take("a")
    elsewhere(folder, "a")
    other = worker(folder)
    other.look("a")
    clock.now += EXPIRY
    taken = other.take("a")
    assert claim.renew() == "another worker has taken it over"
    claim.give_back()  # which changes nothing for the other
    assert taken.renew() is None
    assert worker(folder).take("a") is None


def test_a_worker_whose_claim_is_lost_ends(tmp_path, worker, monkeypatch, capfd):
    """Twice: taken over, and not to be kept; the thread that renews it says so."""
    ended, statuses = threading.Event(), []
    monkeypatch.setattr(claims, "BEAT", 0.01)
    monkeypatch.setattr(claims.os, "_exit", lambda status: (statuses.append(status), ended.set()))
    worker(tmp_path).take("a")
    storage.write_whole(tmp_path / "a" / "claim.7", "{}")
    assert ended.wait(60)
    assert "the claim of a is lost: another worker has taken it over" in capfd.readouterr().err

    def refuse(*_):
        raise RunError("x cannot be written (No space left on device).")

    ended.clear()
    monkeypatch.setattr(claims, "EXPIRY", 0.1)
    claim = worker(tmp_path).take("b")
    monkeypatch.setattr(claims.storage, "write_whole", refuse)
    assert not ended.is_set()
    claim._clock.now += 1
    assert ended.wait(60)
    assert "the claim of b is lost: it could not be kept (x cannot be" in capfd.readouterr().err
    assert statuses == [1, 1]


TAKE = """
import sys, time
from pathlib import Path
from switchx.sweeps.claims import Claims
print(Claims(lambda name: Path(sys.argv[1]) / name, {}).take("a") is not None, flush=True)
time.sleep(600)
"""


def test_one_of_a_dead_process_of_this_machine_is_had_at_once(tmp_path, worker):
    command = [sys.executable, "-c", TAKE, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "True\n"
        assert worker(tmp_path).take("a") is None
        process.kill()
    assert worker(tmp_path).take("a") is not None


def test_what_is_no_claim_is_waited_for(tmp_path, worker, clock):
    """As of a file system without links, or of a later version."""
    storage.write_whole(tmp_path / "a" / "claim.3", "[")
    other = worker(tmp_path)
    assert other.take("a") is None
    clock.now += EXPIRY
    assert other.take("a") is not None
    assert claims.numbers(storage.names_in(tmp_path / "a", "X")) == [4]
