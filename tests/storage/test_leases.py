"""One process at a time where nothing can be locked: who lives keeps it, who dies loses it."""

import json
import subprocess
import sys
import threading
import time

import object_stores
import pytest

from switchx import storage
from switchx.errors import UserError
from switchx.storage import leases


def lock(url):
    return storage.exclusive_lock(url, "DIR='a'", "switchx test")


def elsewhere(url):
    """Makes the lease that of a process of another machine."""
    record = json.loads(storage.read_bytes(url, "X"))
    storage.write_whole(url, json.dumps({**record, "place": "another", "token": "other"}))


HOLD = """
import sys, time
from switchx import storage
from switchx.storage import leases
leases.BEAT = float(sys.argv[2])
with storage.exclusive_lock(sys.argv[1], "DIR='a'", "switchx test"):
    print("held", flush=True)
    time.sleep(600)
"""


def holder(url, beat):
    command = [sys.executable, "-c", HOLD, url, str(beat)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_holder_that_lives_is_seen_and_one_that_was_killed_is_not_waited_for(store, capfd):
    url = f"{store.folder()}/.lock"
    with holder(url, 0.1) as other:
        says = rf"DIR='a' is in use by another switchx test, process {other.pid} on \S+: wait"
        with pytest.raises(UserError, match=says), lock(url):
            pass
        assert "watching for up to 120 s whether it still is" in capfd.readouterr().err
        other.kill()
    began = time.monotonic()
    with lock(url):
        assert json.loads(storage.read_bytes(url, "X"))["beat"] == 1
    assert time.monotonic() - began < leases.EXPIRY / 2
    assert storage.read_if_there(url, "X") is None
    assert "watching" not in capfd.readouterr().err


def test_a_holder_of_another_machine_is_waited_for_until_it_expires(gs, monkeypatch):
    url = f"{gs.folder()}/.lock"
    with holder(url, 100) as other:
        other.kill()
    elsewhere(url)
    monkeypatch.setattr(leases, "BEAT", 0.1)
    monkeypatch.setattr(leases, "EXPIRY", 0.5)
    began = time.monotonic()
    with lock(url):
        assert time.monotonic() - began >= 0.5


def test_of_many_that_come_at_once_one_gets_it(store):
    url, got, refused = f"{store.folder()}/.lock", [], []
    together = threading.Barrier(6)

    def take():
        it = leases._Lease(url, "DIR='a'")
        together.wait()
        try:
            it.take("switchx test")
            got.append(it)
        except UserError as error:
            refused.append(str(error))

    # No holder is seen to live here: only the condition on each write keeps them apart.
    threads = [threading.Thread(target=take, daemon=True) for _ in range(6)]
    for thread in threads:
        thread.start()
    while len(got) + len(refused) < 5 and any(thread.is_alive() for thread in threads):
        if got:
            got[0].renew()
        time.sleep(0.05)
    assert len(got) == 1


def test_a_holder_from_whom_it_was_taken_ends(gs):
    """As after a long sleep, or behind a broken network."""
    url = f"{gs.folder()}/.lock"
    with holder(url, 0.2) as other:
        storage.write_whole(url, json.dumps({"process": "7 on elsewhere", "token": "x"}))
        assert other.wait(60) == 1
        says = "switchx: DIR='a' was taken over by 7 on elsewhere; this process ends"
        assert says in other.stderr.read()


def test_a_holder_that_cannot_renew_it_ends_before_another_may_begin(gs, monkeypatch, capfd):
    ended = threading.Event()
    monkeypatch.setattr(leases, "BEAT", 0.05)
    monkeypatch.setattr(leases, "EXPIRY", 0.5)
    monkeypatch.setattr(leases.os, "_exit", lambda status: ended.set())
    url = f"{gs.folder()}/.lock"
    with lock(url):
        gs.choose = lambda method, path: 403
        assert ended.wait(60)
        gs.reset()
    assert "DIR='a' could not be kept (permission denied" in capfd.readouterr().err


def test_answers_that_are_lost_do_not_lose_it(store):
    """The write was done, and the second try finds it so."""
    url = f"{store.folder()}/.lock"
    it = leases._Lease(url, "DIR='a'")
    it.take("switchx test")
    lost = iter(["lost", None] * 20)
    store.choose = lambda method, path: next(lost) if method in ("POST", "PUT") else None
    for beat in range(2, 5):
        it.renew()
        assert json.loads(storage.read_bytes(url, "X"))["beat"] == beat
    store.choose = object_stores.at_random(0.3, seed=1)
    it.renew()


def test_only_where_a_write_can_depend_on_what_is_there():
    with pytest.raises(UserError, match=r"DIR='memory://a/.lock' cannot be written to by one"):  # noqa: SIM117
        with lock("memory://a/.lock"):
            pass
