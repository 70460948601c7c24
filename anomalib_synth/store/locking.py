"""One writer at a time, by a lock that the operating system releases when its holder dies."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from anomalib_synth.store.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PAUSE = 0.05


@contextmanager
def exclusive(path: Path, *, wait: float, busy: str = "") -> Iterator[None]:
    """Hold the lock of a file.

    filelock releases it when the block ends, even if the process was forked meanwhile; the operating system does when
    its holder dies.

    Args:
        path: The lock file; made if it is not there.
        wait: Seconds to wait for another holder, >= 0.
        busy: Message of the error when another process holds it; by default that a run is writing to the folder.

    Raises:
        StoreError: If another process still holds it.
        OSError: If the folder cannot be written to, or its file system has no locks.
    """
    if not path.parent.is_dir():  # filelock would make it
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path.parent))
    lock = FileLock(path, timeout=wait, thread_local=False)
    try:
        lock.acquire(poll_interval=_PAUSE)
    except Timeout as error:
        msg = f"Another run is writing to {str(path.parent)!r}. Wait until it has ended, or write elsewhere."
        raise StoreError(busy or msg) from error
    try:
        yield
    finally:
        lock.release()
