"""Plans the images that a calibration scores, and scores those near the threshold again at other batch sizes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from anomalib_synth.calibration.defect_sets import KeptImages, draw_defect_set, halve_normals, plan_defect_sets
from anomalib_synth.calibration.scoring import Item, Row
from anomalib_synth.calibration.statistics import compare_scores, conformal_threshold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from rich.progress import Progress

    from anomalib_synth.calibration.defect_sets import Normal
    from anomalib_synth.calibration.scoring import Role
    from anomalib_synth.generators import AnomalyGenerator

_MAX_PREPARE = 256
_QUIET = 64
_KEEP_BYTES = 512 * 2**20
_AGAIN = 16  # normals nearest to each threshold that are scored again
_BATCH_SIZES = (1, 3, 8)
_SAFETY = 4  # times the largest difference seen
_IN_MEMORY = 0.1  # of the least distance to PatchCore's memory that a held-out normal has, in the median
_KNOWS = 0.65  # share of pairs in which a held-out normal scores higher than a training image


class ScoringPlan:
    """Everything that is scored, in order, and the rows the scores go to.

    Args:
        normals: The held-out normals.
        real: Real defects.
        trained: Images the model was trained on, to see whether it knows them.
        generator: Draws the defects; it is prepared here.
        strengths: Strengths of the defects.
        per_cell: How many of each family at each strength.
        seed: Seed of the halves and of the defects.
        groups: Which normals belong together, by file; None where nobody said.
        whole_groups: Whether those that do stay in one half.
    """

    def __init__(
        self,
        normals: Sequence[Normal],
        real: Sequence[Path],
        generator: AnomalyGenerator,
        *,
        trained: Sequence[Path] = (),
        strengths: Sequence[float],
        per_cell: int,
        seed: int,
        groups: Mapping[Path, str] | None = None,
        whole_groups: bool = False,
    ) -> None:
        from anomalib_synth.progress import track

        self.rows: list[Row] = []
        self.choose, self.measure = halve_normals(normals, seed, groups if whole_groups else None)
        self._groups = groups or {}
        self._real = real
        self._trained = trained
        self._seed = seed
        read = KeptImages("normals")
        shown = self.choose[:_MAX_PREPARE]
        few = len(shown) < _QUIET
        generator.prepare(read(normal.path) for normal in track(shown, "Preparing the generator", disable=few))
        self._defect_sets = plan_defect_sets(generator, strengths, per_cell)

    def items(self, progress: Progress) -> Iterator[Item]:
        """Yield the images to score, drawing the defects on the way; ``rows`` grows with them."""
        read_normal, read_real = KeptImages("normals"), KeptImages("defects")
        files: list[tuple[Role, Path, KeptImages]] = [
            *(("choose", normal.path, read_normal) for normal in self.choose),
            *(("measure", normal.path, read_normal) for normal in self.measure),
            *(("real", path, read_real) for path in self._real),
            *(("train", path, KeptImages("train_normals")) for path in self._trained),
        ]
        task = progress.add_task(
            "Scoring images", total=len(files) + sum(defect_set.count for defect_set in self._defect_sets)
        )
        for role, path, read in files:
            self.rows.append(Row(role=role, path=str(path), group=self._groups.get(path, "")))
            yield Item(row=self.rows[-1], image=read(path))
            progress.advance(task)
        keep = KeptImages("normals", keep_bytes=_KEEP_BYTES)
        for defect_set in self._defect_sets:
            strength = "" if defect_set.strength is None else f" at {defect_set.strength:g}"
            progress.update(task, description=f"Drawing and scoring {defect_set.family}{strength}")
            for row, item in draw_defect_set(defect_set, self.measure, keep, seed=self._seed):
                self.rows.append(row)
                if item is not None:
                    yield item
                progress.advance(task)

    def draw_again(self, rows: Sequence[Row]) -> dict[int, Item]:
        """Draw synthetic defects again that were scored, and return them by the ``id`` of their rows.

        A defect set is drawn as a whole, as before, so that each defect is the one that was scored.
        """
        wanted = {id(row) for row in rows}
        keep = KeptImages("normals", keep_bytes=_KEEP_BYTES)
        drawn: dict[int, Item] = {}
        for defect_set in self._defect_sets:
            scored = [
                row
                for row in self.rows
                if row.role == "synthetic" and (row.family, row.strength) == (defect_set.family, defect_set.strength)
            ]
            if not any(id(row) in wanted for row in scored):
                continue
            for old, (_, item) in zip(
                scored, draw_defect_set(defect_set, self.measure, keep, seed=self._seed), strict=True
            ):
                if item is not None and id(old) in wanted:
                    drawn[id(old)] = item
        return drawn


def measure_rounding(
    rows: Sequence[Row], rate: float, score: Callable[[Iterable[Item], int], None], *, batch_size: int
) -> tuple[float, float]:
    """Return how far image scores and peaks move from one batch size to another, with a margin.

    Convolutions and matrix products sum in another order for another batch size, so the last digits differ, and without
    a margin the very normal that sets a threshold would be above it half of the time. The normals nearest to the
    thresholds are scored again at several batch sizes. The margin is four times the largest difference, and at least
    four steps of float32.

    Args:
        rows: The rows, scored.
        rate: Target false-alarm rate.
        score: Scores items at a batch size.
        batch_size: The batch size that the rows were scored at.
    """
    choose = [row for row in rows if row.role == "choose"]
    near = {id(row): row for name in ("score", "peak") for row in _nearest(choose, name, rate)}
    moved = {"score": 0.0, "peak": 0.0}
    read = KeptImages("normals")
    for size in _BATCH_SIZES:
        if size == batch_size:
            continue
        again = [replace(row) for row in near.values()]
        score((Item(row=row, image=read(Path(row.path))) for row in again), size)
        for name, most in moved.items():
            pairs = zip(again, near.values(), strict=True)
            gaps = [abs(getattr(new, name) - getattr(old, name)) for new, old in pairs]
            moved[name] = max([most, *(gap for gap in gaps if not math.isnan(gap))])
    return _with_margin(choose, "score", moved), _with_margin(choose, "peak", moved)


def _nearest(choose: Sequence[Row], name: str, rate: float) -> list[Row]:
    values = [getattr(row, name) for row in choose]
    if any(math.isnan(value) for value in values):
        return []
    threshold = conformal_threshold(values, rate)
    return sorted(choose, key=lambda row: abs(getattr(row, name) - threshold))[:_AGAIN]


def _with_margin(choose: Sequence[Row], name: str, moved: dict[str, float]) -> float:
    largest = max((abs(getattr(row, name)) for row in choose if not math.isnan(getattr(row, name))), default=0.0)
    return _SAFETY * max(moved[name], float(np.spacing(np.float32(largest))))


def check_known(rows: Sequence[Row], model: str) -> None:
    """Refuse a model that scores its training images like any other: in training it saw something else than now.

    Raises:
        ValueError: If it does; the message says what to do.
    """
    trained, held_out = ([row for row in rows if row.role == role] for role in ("train", "choose"))
    if trained and not _knows(trained, held_out):
        msg = (
            f"`tiler` must be given: {model} scores the images of `train_normals` like images it has never seen. "
            "Either it was trained in tiles, which a checkpoint does not tell: give its training configuration as "
            "`model`, or `tiler` its TilerConfigurationCallback's settings, such as {tile_size: 256, stride: 128}. Or "
            "they are not its training images: name those. If it was trained on these as a whole: --tiler {}."
        )
        raise ValueError(msg)


def _knows(trained: Sequence[Row], held_out: Sequence[Row]) -> bool:
    """Return whether a model knows its training images: PatchCore has patches of them, others score them lower."""
    nearest = min(row.nearest for row in trained)
    if not math.isnan(nearest):
        return nearest < _IN_MEMORY * median(row.nearest for row in held_out)
    scores = [row.score for row in held_out], [row.score for row in trained]
    return compare_scores(*scores).superiority >= _KNOWS
