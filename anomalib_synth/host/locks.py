"""Locks that libraries hold in a process which ends without the interpreter's clean-up."""

from __future__ import annotations

from multiprocessing import util


def free_locks() -> None:
    """Free this process's locks of `multiprocessing`, such as those of progress bars.

    A process that ends by ``os._exit`` leaves them, and its parent then warns of leaked semaphores.
    """
    util._run_finalizers(0)  # type: ignore[attr-defined]
