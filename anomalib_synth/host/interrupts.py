"""Handles Ctrl-C while Lightning runs.

When its trainer is interrupted, Lightning 2.6 ends the process with status 1 and ignores further interrupts.
"""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


@contextmanager
def passing_interrupts() -> Iterator[None]:
    """Pass Ctrl-C on as a KeyboardInterrupt, so that the command decides how it ends, and keep listening.

    An interrupt that a library swallowed, for example in a callback from C, is raised at the end.

    Raises:
        KeyboardInterrupt: On Ctrl-C, in place of the SystemExit that Lightning raises.
    """
    before = signal.getsignal(signal.SIGINT)
    heard: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        signal.default_int_handler(number, frame)

    listens = before is signal.default_int_handler and threading.current_thread() is threading.main_thread()
    if listens:
        signal.signal(signal.SIGINT, hear)
    try:
        yield
        if heard:
            raise KeyboardInterrupt
    except SystemExit as stop:
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            signal.signal(signal.SIGINT, before)
        raise KeyboardInterrupt from stop
    finally:
        if listens:
            signal.signal(signal.SIGINT, before)
