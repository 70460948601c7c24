"""The source and the seed of a sample: a function of its index, the list of normals and the run's seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from anomalib_synth.generators.seeding import hash64

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from anomalib_synth.images import Normal


@dataclass(frozen=True, kw_only=True)
class PlannedSample:
    """A sample that is still to be drawn.

    Args:
        index: Its position in the run.
        normal: The image it is drawn on.
        seed: Its seed.
    """

    index: int
    normal: Normal
    seed: int


def plan_sample(index: int, normals: Sequence[Normal], *, seed: int) -> PlannedSample:
    """Return the plan of one sample: samples go through the normals in order, again and again, with new seeds."""
    repeat, position = divmod(index, len(normals))
    normal = normals[position]
    return PlannedSample(index=index, normal=normal, seed=hash64(seed, repeat, normal.name))


def plan_tasks(
    indices: Iterable[int], normals: Sequence[Normal], *, seed: int, batch_size: int
) -> Iterator[list[PlannedSample]]:
    """Group the samples of ``indices`` into tasks of at most ``batch_size``, in order."""
    task: list[PlannedSample] = []
    for index in indices:
        task.append(plan_sample(index, normals, seed=seed))
        if len(task) == batch_size:
            yield task
            task = []
    if task:
        yield task


def missing_indices(done: Iterable[int], num_samples: int) -> Iterator[int]:
    """Yield the indices below ``num_samples`` that are not done: those never drawn, and those a repair took out."""
    present = set(done)
    return (index for index in range(num_samples) if index not in present)
