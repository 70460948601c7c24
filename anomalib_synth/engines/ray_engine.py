"""Drawing on a Ray cluster: an existing one if ``RAY_ADDRESS`` names it, else one on this machine."""

from __future__ import annotations

import logging
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


logger = logging.getLogger(__name__)

_ATTEMPTS = 3  # for a task whose actors die or whose rows are lost


class RayWorker:
    """The class of each Ray actor.

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
    file system that all of them mount at the same path. When a machine or an actor dies, the others draw the tasks it
    had; the samples are the same, as they depend on the plan alone.

    Args:
        job: What to draw with.
        tasks: The tasks; drawn from lazily.
        workers: Number of actors.

    Raises:
        ValueError: If Ray is not installed, or the cluster is out of reach or has fewer CPUs than ``workers``.
        WorkerDiedError: If no actor is left, or a task was lost three times.
    """
    ray = import_ray()
    ours = not ray.is_initialized()
    if ours:
        connect(ray, workers)
    actors: _Actors | None = None
    pending: deque = deque()
    try:
        _check_cpus(ray, workers)
        actors = _Actors(ray, job, workers)
        for task in tasks:
            pending.append((task, *actors.submit(task)))
            if len(pending) >= workers * AHEAD:
                yield actors.result(*pending.popleft())
        while pending:
            yield actors.result(*pending.popleft())
    finally:
        if actors is not None:
            actors.close()
        if ours:
            ray.shutdown()


class _Actors:
    """The actors of a run that are alive, and the tasks they have."""

    def __init__(self, ray: Any, job: Job, workers: int) -> None:
        self.ray = ray
        payload = ray.put(job.to_bytes())
        kind = ray.remote(num_cpus=1, scheduling_strategy="SPREAD")(RayWorker)
        self.alive = {number: kind.remote(payload) for number in range(workers)}
        self.busy: dict[Any, int] = {}

    def submit(self, task: Sequence[PlannedSample]) -> tuple[Any, int]:
        """Give a task to an actor that lives; return the reference of its rows, and the actor's number."""
        number = self._least_busy()
        reference = self.alive[number].draw.remote(task)
        self.busy[reference] = number
        return reference, number

    def result(self, task: Sequence[PlannedSample], reference: Any, number: int) -> list[Record]:
        """Return the rows of a task; if its actor or machine died, another actor draws it.

        Raises:
            WorkerDiedError: If no actor is left, or the task was lost three times.
        """
        ray = self.ray
        lost = 0
        while True:
            try:
                return ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                raise (error.cause or error) from error
            except ray.exceptions.RayError as error:
                cause = getattr(error, "cause", None)
                if isinstance(cause, ValueError):  # the actor could not be set up
                    raise cause from error
                if not isinstance(error, ray.exceptions.ObjectLostError):  # rows can be lost while the actor lives
                    self._bury(number)
                lost += 1
                reason = str(error).strip().splitlines()[0]
                if lost == _ATTEMPTS or not self.alive:
                    raise worker_died(task, reason) from error
                logger.warning("Samples from number %d on are drawn again: %s", task[0].index, reason)
                reference, number = self.submit(task)

    def close(self) -> None:
        """End the actors."""
        for actor in self.alive.values():
            self.ray.kill(actor)

    def _bury(self, number: int) -> None:
        """Count an actor as dead; each task it still has turns out lost when its result is asked for."""
        actor = self.alive.pop(number, None)
        if actor is not None:
            self.ray.kill(actor)  # it may be out of reach and not dead, and two actors must not write one file

    def _least_busy(self) -> int:
        """Forget the tasks that are done, and return the actor with the fewest left: machines differ in speed."""
        if self.busy:
            done, _ = self.ray.wait(list(self.busy), num_returns=len(self.busy), timeout=0, fetch_local=False)
            for reference in done:
                del self.busy[reference]
        loads = Counter(self.busy.values())
        return min(self.alive, key=lambda number: loads[number])


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


def _check_cpus(ray: Any, workers: int) -> None:
    """Refuse more actors than the cluster has CPUs for: the rest would wait for ever, and the run with them."""
    cpus = int(ray.cluster_resources().get("CPU", 0))
    if workers > cpus:
        msg = (
            f"`workers` must be at most the cluster's number of CPUs, {cpus}, got {workers}. Use fewer, or add "
            "machines."
        )
        raise ValueError(msg)


def _check_shared(job: Job) -> Job:
    """Refuse a store that this machine does not see."""
    if not (job.store / "store.json").is_file():
        msg = (
            f"The store {str(job.store)!r} must be on a file system that all machines of the cluster mount at the same "
            f"path, {platform.node()!r} does not see it."
        )
        raise StoreError(msg)
    return job
