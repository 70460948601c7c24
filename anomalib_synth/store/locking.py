"""One writer at a time, by a lock the operating system gives back when its holder dies."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from anomalib_synth.store.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PAUSE = 0.05


@contextmanager
def exclusive(path: Path, *, wait: float) -> Iterator[None]:
    """Hold the lock of a file.

    Args:
        path: The lock file; made if it is not there, never removed.
        wait: Seconds to wait for another holder, >= 0.

    Raises:
        StoreError: If another process still holds it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    is_held = False
    try:
        deadline = time.monotonic() + wait
        while not _try_lock(descriptor):
            if time.monotonic() >= deadline:
                msg = f"Another run is writing to {str(path.parent)!r}. Wait until it has ended, or write elsewhere."
                raise StoreError(msg)
            time.sleep(_PAUSE)
        is_held = True
        yield
    finally:
        if is_held:
            _unlock(descriptor)
        os.close(descriptor)


def _unlock(descriptor: int) -> None:
    """Give the lock back now: closing does so only once every process that was forked meanwhile has ended."""
    if os.name != "nt":
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _try_lock(descriptor: int) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
