"""Ctrl-C while Lightning runs.

Lightning 2.6 ends the process with status 1 when its trainer is interrupted, and has further interrupts ignored.
"""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def passing_interrupts() -> Iterator[None]:
    """Pass Ctrl-C on as it came, so that a command ends as it says, and hear the next one too.

    Raises:
        KeyboardInterrupt: In place of the SystemExit that Lightning makes of it.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            signal.signal(signal.SIGINT, before)
        raise KeyboardInterrupt from stop
