"""What a run does when it is asked to stop, once and again."""

import signal

import pytest

from switchx.hosts.interruption import Interruption


def test_a_signal_is_noted_and_the_handlers_come_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    for number in (signal.SIGTERM, signal.SIGINT):
        with Interruption() as interruption:
            assert interruption.now() is None
            signal.raise_signal(number)
            assert interruption.now() == number
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_only_a_second_ctrl_c_interrupts_at_once():
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)  # the first of its kind
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert interruption.now() == signal.SIGTERM
