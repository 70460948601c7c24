"""Which source and which seed a sample has."""

from __future__ import annotations

from pathlib import Path

from anomalib_synth.engines.plan import missing_indices, plan_sample, plan_tasks
from anomalib_synth.generators.seeding import hash64
from anomalib_synth.images import Normal

NORMALS = [Normal(path=Path(name), name=name, content="") for name in ("a.png", "b.png", "c.png")]


def test_sources_cycle_with_new_seeds_when_there_are_more_samples_than_images() -> None:
    planned = [plan_sample(index, NORMALS, seed=5) for index in range(7)]
    assert [sample.normal.name[0] for sample in planned] == list("abcabca")
    assert len({sample.seed for sample in planned}) == 7
    assert planned[3].seed == hash64(5, 1, "a.png")


def test_seeds_follow_the_name_when_the_folder_moves() -> None:
    moved = [Normal(path=Path("/elsewhere") / normal.name, name=normal.name, content="") for normal in NORMALS]
    assert [plan_sample(i, moved, seed=1).seed for i in range(5)] == [
        plan_sample(i, NORMALS, seed=1).seed for i in range(5)
    ]
    assert plan_sample(0, NORMALS, seed=2).seed != plan_sample(0, NORMALS, seed=1).seed


def test_tasks_hold_every_sample_once_in_order_when_they_are_grouped() -> None:
    tasks = list(plan_tasks(range(3, 10), NORMALS, seed=0, batch_size=3))
    assert [[sample.index for sample in task] for task in tasks] == [[3, 4, 5], [6, 7, 8], [9]]
    alone = [task[0] for task in plan_tasks(range(3, 10), NORMALS, seed=0, batch_size=1)]
    assert [sample for task in tasks for sample in task] == alone


def test_missing_indices_are_the_rest_and_the_holes_when_some_are_done() -> None:
    assert list(missing_indices([0, 1, 4], 7)) == [2, 3, 5, 6]
    assert list(missing_indices(range(9), 7)) == []
