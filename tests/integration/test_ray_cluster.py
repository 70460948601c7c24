"""``generate`` and ``compare`` on a Ray cluster of several machines, one of which dies at work."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from anomalib_synth.commands.generate import generate
from anomalib_synth.engines.isolated_tasks import IsolatedTask, run_isolated
from anomalib_synth.engines.local import WorkerDiedError
from anomalib_synth.store import SampleStore
from benchmarks.generate import check_equal, make_normals, read_store

if TYPE_CHECKING:
    from collections.abc import Iterator

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow
COUNT = 160


@pytest.fixture(scope="module")
def machines() -> Iterator[Any]:
    """A head that computes nothing."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # the workers find the tests' functions
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        patch.setenv("RAY_ADDRESS", made.address)
        yield made
        made.shutdown()


@pytest.fixture
def cluster(machines: Any) -> Any:
    """The head with two machines of one CPU."""
    while len(machines.list_all_nodes()) < 3:
        machines.add_node(num_cpus=1)
    machines.wait_for_nodes()
    return machines


def work(payload: dict[str, Any]) -> dict[str, Any]:
    """Say where it works. Task 0 ends once it was begun twice: a killed machine's worker may live on a while."""
    node = ray.get_runtime_context().get_node_id()
    folder = Path(payload["folder"])
    (folder / f"{payload['number']}_{node}").touch()
    while payload["number"] == 0 and len(list(folder.glob("0_*"))) == 1:
        time.sleep(0.02)
    return {"number": payload["number"], "node": node}


def test_samples_are_the_same_when_a_machine_dies(cluster, tmp_path, monkeypatch, caplog) -> None:
    normals = tmp_path / "normals"
    make_normals(normals, count=10, side=48)
    generate(normals, out=tmp_path / "whole", num_samples=COUNT)
    lost = []
    append = SampleStore.append

    def append_and_kill(self: SampleStore, *args: Any) -> Any:
        if not lost:
            lost.append(cluster.list_all_nodes()[-1])
            cluster.remove_node(lost[0], allow_graceful=False)
        return append(self, *args)

    monkeypatch.setattr(SampleStore, "append", append_and_kill)
    generate(normals, out=tmp_path / "store", num_samples=COUNT, workers=2, engine="ray")
    check_equal(tmp_path / "store", read_store(tmp_path / "whole"))
    assert lost
    assert "are drawn again" in caplog.text


def test_run_ends_with_the_remedy_when_all_machines_die(cluster, tmp_path, monkeypatch) -> None:
    normals = tmp_path / "normals"
    make_normals(normals, count=4, side=48)
    append = SampleStore.append

    def append_and_kill(self: SampleStore, *args: Any) -> Any:
        for node in cluster.list_all_nodes()[1:]:
            cluster.remove_node(node, allow_graceful=False)
        return append(self, *args)

    monkeypatch.setattr(SampleStore, "append", append_and_kill)
    with pytest.raises(WorkerDiedError, match="the same command goes on"):
        generate(normals, out=tmp_path / "store", num_samples=COUNT, workers=2, engine="ray")
    monkeypatch.undo()
    generate(normals, out=tmp_path / "store", num_samples=COUNT)
    generate(normals, out=tmp_path / "whole", num_samples=COUNT)
    check_equal(tmp_path / "store", read_store(tmp_path / "whole"))


def test_more_workers_than_cpus_are_refused(cluster, tmp_path) -> None:
    make_normals(tmp_path / "normals", count=4, side=48)
    with pytest.raises(ValueError, match=r"`workers` must be at most the cluster's number of CPUs, 2, got 3"):
        generate(tmp_path / "normals", out=tmp_path / "store", num_samples=8, workers=3, engine="ray")


def test_trial_runs_again_when_its_machine_dies(cluster, tmp_path) -> None:
    tasks = [
        IsolatedTask(name=str(n), payload={"number": n, "folder": str(tmp_path)}, log=tmp_path / f"{n}.log")
        for n in (0, 1)
    ]
    events = run_isolated(work, tasks, workers=2, engine="ray")
    kinds = [next(events).kind, next(events).kind]
    assert kinds == ["started", "started"]
    deadline = time.monotonic() + 120
    while not (places := list(tmp_path.glob("0_*"))):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    dead = places[0].name.partition("_")[2]
    cluster.remove_node(next(n for n in cluster.list_all_nodes() if n.node_id == dead), allow_graceful=False)
    rest = list(events)
    assert sorted((event.kind, event.task.name) for event in rest) == [("done", "0"), ("done", "1"), ("started", "0")]
    assert next(event.row for event in rest if event.kind == "done" and event.task.name == "0")["node"] != dead
