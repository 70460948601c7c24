"""Tasks in processes of their own: what they return, how they fail, and what dies with them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from anomalib_synth.engines.isolated_tasks import IsolatedTask, _show_one_gpu, run_isolated

held: list[Any] = []


def work(payload: dict[str, Any]) -> dict[str, Any]:
    """What a task does; found by its name in the fresh process."""
    print("working on", payload["number"])
    if payload["number"] == 1:
        msg = "no luck\n  today"
        raise ValueError(msg)
    if payload["number"] == 2:
        os._exit(9)
    if payload["number"] in {3, 5}:
        if payload["number"] == 5:  # as in training, where Lightning takes the signal
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        Path(payload["file"]).write_text(str(os.getpid()))
        time.sleep(60)
    if payload["number"] == 4:
        threading.Thread(target=time.sleep, args=(60,)).start()  # the interpreter waits for it before it ends
    if payload["number"] == 6:
        held.append(multiprocessing.RLock())  # as progress bars do
    return {"number": payload["number"], "device": os.environ.get("CUDA_VISIBLE_DEVICES"), "process": os.getpid()}


def make_tasks(numbers: list[int], folder: Path) -> list[IsolatedTask]:
    return [
        IsolatedTask(name=str(n), payload={"number": n, "file": str(folder / "pid")}, log=folder / f"{n}.log")
        for n in numbers
    ]


def test_rest_goes_on_when_a_task_raises_or_dies(tmp_path) -> None:
    events = list(run_isolated(work, make_tasks([1, 2, 0], tmp_path), workers=1, devices=[4]))
    assert [(event.kind, event.task.name) for event in events] == [
        ("started", "1"), ("failed", "1"), ("started", "2"), ("failed", "2"), ("started", "0"), ("done", "0")
    ]  # fmt: skip
    assert events[1].error == "no luck today"
    assert "exit code 9" in events[3].error
    row = events[5].row
    assert (row["number"], row["device"]) == (0, "4")
    assert row["process"] != os.getpid()
    assert "working on 1" in (tmp_path / "1.log").read_text()
    assert "Traceback" in (tmp_path / "1.log").read_text()


def test_locks_of_tasks_are_not_called_leaked(tmp_path) -> None:
    script = (
        "import sys; from pathlib import Path; from tests.unit.engines.test_isolated_tasks import *; "
        "events = list(run_isolated(work, make_tasks([6], Path(sys.argv[1])), workers=1)); assert events[1].row"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], check=True, capture_output=True, text=True, timeout=300
    )
    assert ended.stderr == ""


@pytest.mark.parametrize("number", [3, 5])
def test_running_task_ends_when_the_iterator_is_closed(number, tmp_path) -> None:
    with closing(run_isolated(work, make_tasks([number], tmp_path), workers=1)) as events:
        assert next(events).kind == "started"
        deadline = time.monotonic() + 60
        while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
    process = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_row_arrives_when_the_process_would_not_end(tmp_path) -> None:
    before = time.monotonic()
    _, done = run_isolated(work, make_tasks([4], tmp_path), workers=1)
    assert done.row["number"] == 4
    assert time.monotonic() - before < 55


@pytest.mark.parametrize(("visible", "seen"), [(None, "2"), ("0,1,5", "5"), ("", "")])
def test_task_sees_one_gpu_of_those_that_are_visible(visible, seen, monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "to be restored")
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    _show_one_gpu(2)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == seen


@pytest.mark.slow
def test_ray_reports_the_same_events(tmp_path, monkeypatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    events = list(run_isolated(work, make_tasks([1, 2, 0], tmp_path), workers=1, engine="ray"))
    assert [(event.kind, event.task.name) for event in events if event.kind != "started"] == [
        ("failed", "1"), ("failed", "2"), ("done", "0")
    ]  # fmt: skip
    assert events[1].error == "no luck today"
    assert "worker died" in events[3].error
    assert events[5].row["process"] != os.getpid()
    assert "working on 0" in (tmp_path / "0.log").read_text()


class DyingCluster:
    """As much of Ray as runs a task, on machines that all die."""

    class exceptions:  # noqa: N801
        RayError = type("RayError", (Exception,), {})
        NodeDiedError = type("NodeDiedError", (RayError,), {})
        ObjectLostError = type("ObjectLostError", (RayError,), {})

    def __init__(self) -> None:
        self.started = 0

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return {}

    def remote(self, **_: object) -> Any:
        return lambda function: self._Remote(self)

    class _Remote:
        def __init__(self, cluster: DyingCluster) -> None:
            self.cluster = cluster

        def remote(self, *_: object) -> int:
            self.cluster.started += 1
            return self.cluster.started

    def wait(self, references: list[int], **_: object) -> tuple[list[int], list[int]]:
        return references[:1], references[1:]

    def get(self, reference: int) -> None:
        raise self.exceptions.NodeDiedError(f"no answer to {reference}")

    def cancel(self, *_: object, **__: object) -> None:
        return


def test_task_fails_when_every_machine_dies_of_it(tmp_path, monkeypatch) -> None:
    """A task that needs more memory than there is must not take down one machine after the other."""
    cluster = DyingCluster()
    monkeypatch.setattr("anomalib_synth.engines.ray_engine.import_ray", lambda: cluster)
    events = list(run_isolated(work, make_tasks([0], tmp_path), workers=1, engine="ray"))
    assert [event.kind for event in events] == ["started"] * 3 + ["failed"]
    assert "Its machine died 3 times" in events[-1].error
    assert cluster.started == 3
