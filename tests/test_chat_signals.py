"""Signals are heard where they may be, and wait elsewhere."""

from __future__ import annotations

import signal
import sys

import pytest

from bitinfer.cli.chat.terminal import Interrupts

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


@pytest.fixture
def interrupts():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    made = Interrupts()
    yield made
    made.close()
    assert {number: signal.getsignal(number) for number in before} == before


def test_ctrl_c_is_raised_where_it_is_allowed(interrupts) -> None:
    with pytest.raises(KeyboardInterrupt), interrupts.allowed():
        signal.raise_signal(signal.SIGINT)


def test_signal_waits_until_it_is_allowed_and_comes_once(interrupts) -> None:
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)  # the request to end is the stronger one
    reached = False
    with pytest.raises(SystemExit) as ended, interrupts.allowed():
        reached = True
    assert not reached
    assert ended.value.code == 128 + signal.SIGTERM
    with interrupts.allowed():
        reached = True
    assert reached


def test_signal_can_be_given_to_somebody(interrupts) -> None:
    heard: list[BaseException] = []
    with interrupts.allowed(heard.append):
        signal.raise_signal(signal.SIGHUP)
    assert [type(error) for error in heard] == [SystemExit]


def test_signals_that_are_ignored_stay_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        made = Interrupts()
        signal.raise_signal(signal.SIGHUP)
        with made.allowed():
            pass
        made.close()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
