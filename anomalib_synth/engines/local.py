"""Draws on this machine: in this process, or in a pool of fresh ones."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, cast

from anomalib_synth.engines.worker import Job, Worker

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from concurrent.futures import Future

    from anomalib_synth.engines.plan import PlannedSample
    from anomalib_synth.store import Record

AHEAD = 4  # tasks a worker may be ahead of the manifest
_worker: Worker | None = None


class WorkerDiedError(ValueError):
    """A process that draws samples ended without an answer."""


def run_local(job: Job, tasks: Iterable[Sequence[PlannedSample]], *, workers: int) -> Iterator[list[Record]]:
    """Draw tasks in this process (one worker) or in several; yield their rows in the order of the tasks.

    Args:
        job: What to draw with.
        tasks: The tasks; drawn from lazily.
        workers: Number of processes.

    Raises:
        WorkerDiedError: If a process was killed, as by the system when memory runs out.
    """
    if workers == 1:
        worker = Worker(job)
        for task in tasks:
            yield worker.draw(task)
        return
    pool = ProcessPoolExecutor(
        max_workers=workers,
        mp_context=multiprocessing.get_context("spawn"),  # fork is unsafe once torch's threads run
        initializer=_start_worker,
        initargs=(job.to_bytes(),),
    )
    pending: deque = deque()
    try:
        for task in tasks:
            pending.append((task, pool.submit(_draw, task)))
            if len(pending) >= workers * AHEAD:
                yield _result(*pending.popleft())
        while pending:
            yield _result(*pending.popleft())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def worker_died(task: Sequence[PlannedSample], why: str) -> WorkerDiedError:
    """Return the error for a worker that is gone."""
    msg = (
        f"A worker died while samples from number {task[0].index} on were drawn ({why}). The usual cause is memory: "
        "use fewer `workers`, a smaller `batch_size` or `image_size`. A script that calls this must guard its start "
        'with `if __name__ == "__main__":`. The store is whole: the same command goes on where it stopped.'
    )
    return WorkerDiedError(msg)


def _result(task: Sequence[PlannedSample], future: Future[list[Record]]) -> list[Record]:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise worker_died(task, "its process ended") from error


def _start_worker(job: bytes) -> None:
    """Set up a fresh process, which leaves Ctrl-C to its parent and ends with it."""
    global _worker  # noqa: PLW0603  (a pool's tasks share nothing but the module)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = Worker(Job.from_bytes(job))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
    os._exit(1)


def _draw(task: Sequence[PlannedSample]) -> list[Record]:
    return cast("Worker", _worker).draw(task)
