"""What a run does when it is asked to stop, once and again."""

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from switchx.hosts.interruption import Interruption

NOTED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def test_a_signal_is_noted_and_the_handlers_come_back(capfd):
    before = [signal.getsignal(number) for number in NOTED]
    for number in NOTED:
        with Interruption() as interruption:
            assert interruption.now() is None
            signal.raise_signal(number)
            assert interruption.now() == number
    assert [signal.getsignal(number) for number in NOTED] == before
    assert capfd.readouterr().err.count("ctrl-C again leaves at once") == 1


def test_another_thread_leaves_signals_to_the_main_one():
    """Python refuses handlers that another thread sets."""

    def train():
        with Interruption() as interruption:
            return interruption.now()

    before = [signal.getsignal(number) for number in NOTED]
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(train).result() is None
    assert [signal.getsignal(number) for number in NOTED] == before


def test_what_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            signal.raise_signal(signal.SIGHUP)
            assert interruption.now() is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_comes_as_an_error_is_noted_too():
    with Interruption() as interruption:
        interruption.note(signal.SIGPIPE)
        assert interruption.now() == signal.SIGPIPE


def test_only_a_second_ctrl_c_interrupts_at_once():
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)  # the first of its kind
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert interruption.now() == signal.SIGTERM
