"""Runs many long, independent tasks, each in a fresh process that may die without taking the others with it."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
import threading
import traceback
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from anomalib_synth.host.locks import free_locks

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    Run = Callable[[dict[str, Any]], dict[str, Any]]

_PATIENCE = 30.0  # seconds a process that has answered gets to end
_GRACE = 3.0  # seconds a process that is asked to stop gets


@dataclass(frozen=True, kw_only=True)
class IsolatedTask:
    """A task that runs in a process of its own.

    Args:
        name: Name that is shown to the user.
        payload: Argument of the function; plain data.
        log: File that everything it prints goes to.
    """

    name: str
    payload: dict[str, Any]
    log: Path


@dataclass(frozen=True, kw_only=True)
class TaskEvent:
    """An event in the life of a task.

    Args:
        kind: ``"started"``, ``"done"`` or ``"failed"``.
        task: The task.
        row: What the function returned; None unless the task is done.
        error: Why it failed; empty unless it failed.
    """

    kind: Literal["started", "done", "failed"]
    task: IsolatedTask
    row: dict[str, Any] | None = None
    error: str = ""


def run_isolated(
    function: Run,
    tasks: Sequence[IsolatedTask],
    *,
    workers: int,
    engine: Literal["local", "ray"] = "local",
    devices: Sequence[int] = (0,),
) -> Generator[TaskEvent, None, None]:
    """Run a function on every task and yield what happens, in the order it happens.

    Every task has a process of its own. A task that raises or dies is reported, and the rest go on. On Ray, a task
    whose machine dies is started again on another one, and yields a second ``started``. Closing the iterator ends the
    tasks that run.

    Args:
        function: Takes a payload and returns a row; importable by its name. It sees one GPU only, as number 0.
        tasks: The tasks, started in this order.
        workers: Tasks that run at the same time.
        engine: ``"local"``: processes of this machine. ``"ray"``: tasks of one CPU, and of one GPU where the cluster
            has some, on the cluster that ``RAY_ADDRESS`` names, else on a local one.
        devices: Numbers of the GPUs that local tasks are spread over.

    Raises:
        ValueError: If Ray is not installed, or its cluster is out of reach.
    """
    if engine == "ray":
        return _run_on_ray(function, tasks, workers=workers)
    return _run_locally(function, tasks, workers=workers, devices=devices)


def log_name(name: str, digest: str) -> str:
    """Return a file name for the log of a task.

    Example:
        >>> log_name("realnet (rule_based), mvtec/bottle, seed 0", "ab12")
        'realnet_rule_based_mvtec_bottle_seed_0-ab12.log'
    """
    return f"{re.sub(r'[^A-Za-z0-9.-]+', '_', name).strip('_')[:80]}-{digest}.log"


def _run_locally(
    function: Run, tasks: Sequence[IsolatedTask], *, workers: int, devices: Sequence[int]
) -> Generator[TaskEvent, None, None]:
    context = multiprocessing.get_context("spawn")  # fork is unsafe once torch's threads run
    waiting = list(reversed(tasks))
    free = list(reversed(range(workers)))
    running: dict[Connection, tuple[IsolatedTask, Any, int]] = {}
    try:
        while waiting or running:
            while waiting and free:
                task, slot = waiting.pop(), free.pop()
                receiver, sender = context.Pipe(duplex=False)
                place = (str(task.log), devices[slot % len(devices)])
                process = context.Process(target=_work, args=(function, task.payload, *place, sender))
                process.start()
                sender.close()  # the child's copy is the last one: its death ends the pipe
                running[receiver] = (task, process, slot)
                yield TaskEvent(kind="started", task=task)
            for receiver in [each for each in wait(list(running)) if isinstance(each, Connection)]:
                task, process, slot = running.pop(receiver)
                free.append(slot)
                yield _receive(receiver, task, process)
    finally:
        for _, process, _ in running.values():
            process.terminate()
        for _, process, _ in running.values():
            process.join(timeout=_GRACE)
            if process.is_alive():  # Lightning catches the signal, and acts on it only between batches
                process.kill()
                process.join()


def _receive(receiver: Connection, task: IsolatedTask, process: Any) -> TaskEvent:
    """Return what a process sent, or how it ended without sending."""
    try:
        ok, answer = receiver.recv()
    except EOFError:
        ok, answer = False, None
    receiver.close()
    process.join(timeout=_PATIENCE)
    if process.is_alive():
        process.kill()
        process.join()
    if answer is None:
        answer = (
            f"Its process ended without an answer (exit code {process.exitcode}). The usual cause is memory: use fewer "
            "workers, smaller batches or images. A script that calls this must guard its start with "
            '`if __name__ == "__main__":`.'
        )
    if ok:
        return TaskEvent(kind="done", task=task, row=answer)
    return TaskEvent(kind="failed", task=task, error=answer)


def _work(function: Run, payload: dict[str, Any], log: str, device: int, sender: Connection) -> None:
    """Run one task in a fresh process, which leaves Ctrl-C to its parent and ends with it."""
    _show_one_gpu(device)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(BrokenPipeError):
        sender.send(_try(function, payload, log))
    sender.close()
    free_locks()
    os._exit(0)  # what libraries do when the interpreter ends can hang, and nothing of theirs is needed any more


def _show_one_gpu(device: int) -> None:
    """Hide all GPUs but one from this process; otherwise every model that asks for one device takes the first."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(device)
    elif visible.strip():
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[device].strip()


def _try(function: Run, payload: dict[str, Any], log: str) -> tuple[bool, Any]:
    """Return True and the row, or False and the error in one line; output and traceback go to the log."""
    _redirect(Path(log))
    try:
        return True, function(payload)
    except Exception as error:
        traceback.print_exc()
        text = " ".join(str(error).split()) or "no message"
        return False, text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _redirect(log: Path) -> None:
    """Send this process's output to a file, including what libraries write without Python."""
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    sys.stdout = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8", errors="replace")
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="replace")


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
    os._exit(1)


def _run_on_ray(function: Run, tasks: Sequence[IsolatedTask], *, workers: int) -> Generator[TaskEvent, None, None]:
    from anomalib_synth.engines.ray_engine import (  # not above: each fresh process would load torch
        ATTEMPTS,
        connect,
        import_ray,
    )

    ray = import_ray()
    ours = not ray.is_initialized()
    if ours:
        connect(ray, workers)
    waiting = list(reversed(tasks))
    running: dict[Any, IsolatedTask] = {}
    lost: Counter[str] = Counter()
    try:
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        remote = ray.remote(num_cpus=1, num_gpus=gpus, max_calls=1, max_retries=0)(_work_on_ray)  # fresh process each
        while waiting or running:
            while waiting and len(running) < workers:
                task = waiting.pop()
                running[remote.remote(function, task.payload, str(Path(task.log).absolute()), str(Path.cwd()))] = task
                yield TaskEvent(kind="started", task=task)
            (reference, *_), _ = ray.wait(list(running), num_returns=1)
            task = running.pop(reference)
            try:
                ok, answer = ray.get(reference)
            except (ray.exceptions.NodeDiedError, ray.exceptions.ObjectLostError) as error:  # the machine's fault, once
                lost[task.name] += 1
                if lost[task.name] < ATTEMPTS:
                    waiting.append(task)
                    continue
                reason = " ".join(str(error).split())[:300]
                ok, answer = (
                    False,
                    f"Its machine died {ATTEMPTS} times, it may need more memory than they have: {reason}",
                )
            except ray.exceptions.RayError as error:
                ok, answer = False, f"Its Ray worker died: {' '.join(str(error).split())[:300]}"
            kind: Literal["done", "failed"] = "done" if ok else "failed"
            yield TaskEvent(kind=kind, task=task, row=answer if ok else None, error="" if ok else answer)
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
        if ours:
            ray.shutdown()


def _work_on_ray(function: Run, payload: dict[str, Any], log: str, folder: str) -> tuple[bool, Any]:
    """Run one task on a Ray worker, in the folder that relative paths refer to."""
    try:
        os.chdir(folder)
        Path(log).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return False, f"All machines of the cluster must mount {folder!r} at the same path: {error}"
    return _try(function, payload, log)
