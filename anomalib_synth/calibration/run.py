"""Runs a calibration from its arguments to the measurements; nothing is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anomalib_synth._version import __version__
from anomalib_synth.calibration.checkpoints import load_model, read_checkpoint
from anomalib_synth.calibration.device import choose_device
from anomalib_synth.calibration.held_out import (
    CALIBRATION,
    check_count,
    check_generator_not_learned,
    check_normals_not_learned,
    check_not_trained_on,
    list_normals,
    list_real,
)
from anomalib_synth.calibration.kept_white_point import read_kept_white_point
from anomalib_synth.calibration.planning import ScoringPlan, check_known, measure_rounding
from anomalib_synth.calibration.result import evaluate
from anomalib_synth.calibration.scoring import describe_order, score_items
from anomalib_synth.calibration.training_run import read_inference, tile
from anomalib_synth.generators.prepared import evenly_spread
from anomalib_synth.host.thresholds import check_post_processor, has_pixel_threshold, write_thresholds
from anomalib_synth.images import check_host_agrees, list_images
from anomalib_synth.progress import make_progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from rich.progress import Progress

    from anomalib_synth.calibration.result import CalibrationResult
    from anomalib_synth.calibration.scoring import Item, Row
    from anomalib_synth.generators import AnomalyGenerator

_LEAST_RATE = 1e-6  # a threshold for it takes a million normals
_SHOWN = 32  # training images that a model must know


def check_targets(false_alarm_rate: float, min_recall: float) -> None:
    """Refuse targets that are out of their range.

    Raises:
        ValueError: If one is; the message names it.
    """
    if not _LEAST_RATE <= false_alarm_rate < 1:
        msg = (
            f"`false_alarm_rate` must be in (0, 1), and {_LEAST_RATE} at the least, got {false_alarm_rate}. 0.05 means "
            "one good image in twenty."
        )
        raise ValueError(msg)
    if not 0 <= min_recall <= 1:
        msg = f"`min_recall` must be in [0, 1], got {min_recall}. 0.5 means half of the strongest defects."
        raise ValueError(msg)


@dataclass(frozen=True, kw_only=True)
class CalibrationSettings:
    """How a model is calibrated; see :func:`anomalib_synth.commands.calibrate.calibrate`.

    Raises:
        ValueError: If a value is out of its range.
    """

    false_alarm_rate: float
    min_recall: float
    strengths: tuple[float, ...]
    per_cell: int
    max_normals: int
    batch_size: int
    accelerator: str
    seed: int

    def __post_init__(self) -> None:
        """Validate the settings."""
        check_targets(self.false_alarm_rate, self.min_recall)
        if not self.strengths or not all(0 < strength <= 1 for strength in self.strengths):
            msg = f"`strengths` must be numbers in (0, 1], at least one, got {list(self.strengths)}."
            raise ValueError(msg)
        for name in ("per_cell", "max_normals", "batch_size"):
            if getattr(self, name) < 1:
                msg = f"`{name}` must be >= 1, got {getattr(self, name)}."
                raise ValueError(msg)
        choose_device(self.accelerator)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A finished calibration.

    Args:
        outcome: Thresholds, rates, recall.
        rows: A row for each image that was scored.
        settings: What it was measured with, for the report.
        notes: Sentences for the user about how it was done.
        checkpoint: The content of the checkpoint, with the new thresholds.
        plan: What was scored; it draws a defect once more, for a picture.
    """

    outcome: CalibrationResult
    rows: Sequence[Row]
    settings: dict[str, Any]
    notes: list[str]
    checkpoint: dict[str, Any]
    plan: ScoringPlan


def run_calibration(
    checkpoint: Path,
    normals: Path,
    generator: AnomalyGenerator,
    settings: CalibrationSettings,
    *,
    model: str | None = None,
    defects: Path | None = None,
    train_normals: Path | None = None,
    tiler: dict[str, Any] | None = None,
    groups: Mapping[Path, str] | None = None,
    whole_groups: bool = False,
    progress: Progress | None = None,
) -> Calibration:
    """Score held-out normals and defects drawn on them, and set the thresholds.

    Shows how far it is in ``progress``, by default in a bar of its own.

    Args:
        checkpoint: The checkpoint.
        normals: Folder of good images that the model was not trained on.
        generator: Draws the defects; it is prepared here.
        settings: How the model is calibrated.
        model: Class path or configuration of the model, None to look for it above the checkpoint.
        defects: Folder of real defects, None for none.
        train_normals: Folder of the training images, None where the configuration names them.
        tiler: Settings of anomalib's tiler, ``{}`` for no tiler, None to look for them in the configuration.
        groups: Name of the group of each normal, by file, such as those that look alike: intervals of false alarms are
            the wider, the more alike the scores within a group are. None: each normal is for itself.
        whole_groups: Keep each group in one half, where the groups are parts that the user has named.
        progress: Shows how far it is.

    Raises:
        ValueError: If an argument is wrong, before any work, or the checkpoint does not fit the model.
    """
    loaded = read_checkpoint(checkpoint)
    network, config = load_model(model, checkpoint, loaded)
    check_post_processor(network)
    inference = read_inference(config) if config and tiler is None else tile(tiler or {})
    kept = read_kept_white_point(checkpoint, loaded)
    held_out, copies = list_normals(normals, settings.max_normals, kept)
    check_count(len(held_out), settings.false_alarm_rate)
    check_not_trained_on(held_out, train_normals, config, kept)
    notes = [inference.describe(), describe_order(network)]
    notes += [f"{copies} normals are copies of others and were left out."] if copies else []
    check_normals_not_learned(held_out, loaded)
    check_generator_not_learned(generator, loaded)
    real = [] if defects is None else list_real(defects, loaded, kept)
    trained: list[Path] = []
    if train_normals and config is None and tiler is None and hasattr(network.model, "tiler"):
        trained = evenly_spread(list_images(train_normals, "train_normals").paths, _SHOWN)
        check_host_agrees(trained, "train_normals")
    strengths = tuple(sorted(set(settings.strengths)))
    plan = ScoringPlan(
        held_out, real, generator, trained=trained, strengths=strengths, per_cell=settings.per_cell, seed=settings.seed,
        groups=groups, whole_groups=whole_groups,
    )  # fmt: skip

    def score(items: Iterable[Item], size: int) -> None:
        score_items(network, checkpoint, items, inference=inference, batch_size=size, accelerator=settings.accelerator)

    with progress or make_progress(transient=True) as shown:
        score(plan.items(shown), settings.batch_size)
    check_known(plan.rows, type(network).__name__)
    rate = settings.false_alarm_rate
    rounding = measure_rounding(plan.rows, rate, score, batch_size=settings.batch_size)
    with_pixels = has_pixel_threshold(loaded)
    outcome = evaluate(plan.rows, rate, with_pixels=with_pixels, rounding=rounding, min_recall=settings.min_recall)
    described = {
        "version": __version__,
        "checkpoint": str(checkpoint.resolve()),  # its configuration is looked for from anywhere
        "model": type(network).__name__,
        "normals": str(normals),
        "defects": None if defects is None else str(defects),
        "inference": inference.describe(),
        "generator": generator.config,
        "strengths": list(strengths),
        "per_cell": settings.per_cell,
        "max_normals": settings.max_normals,
        "seed": settings.seed,
    }
    changes = write_thresholds(loaded, image=outcome.image, pixel=outcome.pixel)
    loaded[CALIBRATION] = {**described, **outcome.to_dict()}
    notes = [note for note in [*notes, *changes] if note]
    return Calibration(outcome=outcome, rows=plan.rows, settings=described, notes=notes, checkpoint=loaded, plan=plan)
