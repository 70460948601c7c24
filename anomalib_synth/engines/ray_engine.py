"""Drawing on a Ray cluster: an existing one if ``RAY_ADDRESS`` names it, else one on this machine."""

from __future__ import annotations

import os
import platform
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

from anomalib_synth.engines.local import AHEAD, worker_died
from anomalib_synth.engines.worker import Job, Worker
from anomalib_synth.installation import install_extras
from anomalib_synth.store import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from anomalib_synth.engines.plan import PlannedSample
    from anomalib_synth.store import Record


class RayWorker:
    """What each actor runs.

    Args:
        job: The job's bytes.
    """

    def __init__(self, job: bytes) -> None:
        self.worker = Worker(_check_shared(Job.from_bytes(job)))

    def draw(self, task: Sequence[PlannedSample]) -> list[Record]:
        """Draw the samples of a task; see :meth:`anomalib_synth.engines.worker.Worker.draw`."""
        return self.worker.draw(task)


def run_on_ray(job: Job, tasks: Iterable[Sequence[PlannedSample]], *, workers: int) -> Iterator[list[Record]]:
    """Draw tasks on Ray actors of one CPU each; yield their rows in the order of the tasks.

    The actors write into the store's folder and read the normals themselves: on several machines both must be on a
    file system that all of them mount at the same path.

    Args:
        job: What to draw with.
        tasks: The tasks; drawn from lazily.
        workers: Number of actors.

    Raises:
        ValueError: If Ray is not installed, or the cluster is out of reach.
        WorkerDiedError: If an actor died.
    """
    ray = import_ray()
    ours = not ray.is_initialized()
    if ours:
        connect(ray, workers)
    pending: deque = deque()
    actors: list[Any] = []
    busy: dict[Any, int] = {}
    try:
        payload = ray.put(job.to_bytes())
        actors += [ray.remote(num_cpus=1)(RayWorker).remote(payload) for _ in range(workers)]
        for task in tasks:
            chosen = _least_busy(ray, busy, workers)
            reference = actors[chosen].draw.remote(task)
            busy[reference] = chosen
            pending.append((task, reference))
            if len(pending) >= workers * AHEAD:
                yield _result(ray, *pending.popleft())
        while pending:
            yield _result(ray, *pending.popleft())
    finally:
        for actor in actors:
            ray.kill(actor)
        if ours:
            ray.shutdown()


def import_ray() -> Any:
    """Return the module ``ray``.

    Raises:
        ValueError: If it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        msg = f"`engine` 'ray' needs Ray, which is not installed: {install_extras('ray')}"
        raise ValueError(msg) from error
    return ray


def connect(ray: Any, workers: int) -> None:
    """Join the cluster that ``RAY_ADDRESS`` names, or start one here."""
    address = os.environ.get("RAY_ADDRESS")
    quiet = {"log_to_driver": False, "logging_level": "warning"}
    if not address:
        ray.init(address="local", num_cpus=workers, include_dashboard=False, **quiet)
        return
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError) as error:
        msg = f"RAY_ADDRESS is {address!r}, but no cluster answers there ({error}). Start it, or unset RAY_ADDRESS."
        raise ValueError(msg) from error


def _least_busy(ray: Any, busy: dict[Any, int], workers: int) -> int:
    """Forget the tasks that are done, and return the actor with the fewest others: machines differ in speed."""
    if busy:
        done, _ = ray.wait(list(busy), num_returns=len(busy), timeout=0, fetch_local=False)
        for reference in done:
            del busy[reference]
    loads = Counter(busy.values())
    return min(range(workers), key=lambda number: loads[number])


def _check_shared(job: Job) -> Job:
    """Refuse a store that this machine does not see."""
    if not (job.store / "store.json").is_file():
        msg = (
            f"The store {str(job.store)!r} must be on a file system that all machines of the cluster mount at the same "
            f"path, {platform.node()!r} does not see it."
        )
        raise StoreError(msg)
    return job


def _result(ray: Any, task: Sequence[PlannedSample], reference: Any) -> list[Record]:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise (error.cause or error) from error
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, ValueError):
            raise cause from error
        raise worker_died(task, str(error).strip().splitlines()[0]) from error
