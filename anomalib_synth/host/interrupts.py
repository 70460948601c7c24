"""Ctrl-C while Lightning runs.

Lightning 2.6 ends the process with status 1 when its trainer is interrupted, and has further interrupts ignored.
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
    """Pass Ctrl-C on as it came, so that a command ends as it says, and hear the next one too.

    One that a library swallowed on the way, as in a callback from C, is raised at the end.

    Raises:
        KeyboardInterrupt: In place of the SystemExit that Lightning makes of it.
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
