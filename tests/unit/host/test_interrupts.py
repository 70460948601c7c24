"""Ctrl-C while Lightning runs reaches the command as it came."""

from __future__ import annotations

import contextlib
import signal
import sys

import pytest

from anomalib_synth.host.interrupts import passing_interrupts


def stop_as_lightning_does() -> None:
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.exit(1)


def test_interrupt_is_passed_on_when_lightning_ends_the_process() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), passing_interrupts():
        stop_as_lightning_does()
    assert signal.getsignal(signal.SIGINT) is before


def test_interrupt_is_passed_on_when_a_library_swallows_it() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), passing_interrupts(), contextlib.suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_handler_of_the_caller_is_left_alone_when_there_is_one() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        with passing_interrupts():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [signal.SIGINT]


def test_exit_stays_an_exit_when_nobody_interrupted() -> None:
    with pytest.raises(SystemExit), passing_interrupts():
        sys.exit(3)
