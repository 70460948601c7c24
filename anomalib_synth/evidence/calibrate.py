"""The command `anomalib-synth calibrate`: a threshold that keeps its false-alarm rate, and what it finds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import lazy_instance

from anomalib_synth._version import __version__
from anomalib_synth.generators import AnomalyGenerator, RuleBasedGenerator
from anomalib_synth.generators.prepared import evenly_spread

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.progress import Progress

    from anomalib_synth.evidence.outcome import Outcome
    from anomalib_synth.evidence.scoring import Item, Row

_STRENGTHS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_SHOWN = 32  # training images that a model must know


def calibrate(
    checkpoint: Path,
    normals: Path,
    *,
    out: Path,
    model: str | None = None,
    generator: AnomalyGenerator = lazy_instance(RuleBasedGenerator),  # noqa: B008
    defects: Path | None = None,
    train_normals: Path | None = None,
    tiler: dict[str, Any] | None = None,
    false_alarm_rate: float = 0.05,
    min_recall: float = 0.1,
    strengths: tuple[float, ...] = _STRENGTHS,
    per_cell: int = 20,
    max_normals: int = 1000,
    batch_size: int = 16,
    accelerator: str = "auto",
    seed: int = 0,
) -> None:
    """Set a trained model's threshold for a false-alarm rate, and measure the faintest defects it then finds.

    The normals must not be training images: a model scores those lower than any other, and the threshold would be far
    too low. They are compared, by content, with every normal image that the run's datamodule could have trained on.
    Images are scored as `anomalib predict` does it: with the checkpoint's transform, and with what the run's
    configuration changes about predictions (the tiler, callbacks of your own, the precision).

    Half of the normals (chosen by content and seed) set the threshold, a split-conformal quantile, so the chance of a
    false alarm is at most the target; the other half measures the rate that results. The threshold stands above the
    normal that sets it by more than a score moves between batch sizes. Defects are drawn on the measuring half at the
    size of the files, the same ones at every strength; recall is the share found of those that are visible by the
    generator's checks and not cropped away by the model's own transform.

    Writes to the folder `out`: `calibrated.ckpt`, a copy of the checkpoint with which `anomalib predict` labels by the
    new thresholds (validating it again would overwrite them), `recall.png`, `recall.csv`, `scores.csv` and
    `calibration.json`.

    Args:
        checkpoint: Checkpoint of any anomalib model (.ckpt), as `anomalib train` saves it. It is not changed.
        normals: Folder with good images that the model was NOT trained on, searched recursively. 5 % false alarms take
            38 of them, 1 % take 198.
        out: Folder for the results.
        model: Class path of the model (anomalib.models.Patchcore), or the YAML configuration it was trained with. Not
            needed where `anomalib train` left its config.yaml above the checkpoint.
        generator: Draws the defects. A RuleBasedGenerator shows each of its families at each strength; any other
            generator counts as one kind of defect.
        defects: Folder with a few real defects, searched recursively; warns if they score unlike the synthetic ones.
        train_normals: Folder with the training images, to make sure that none is among the normals; needed where no
            configuration tells which they are.
        tiler: Settings of anomalib's TilerConfigurationCallback, such as {tile_size: 256, stride: 128}, where the model
            was trained with it and no configuration tells; {} for none.
        false_alarm_rate: Target share of good images that may be called anomalous, in (0, 1).
        min_recall: Least share of the strongest defects that a model fit for use finds, in [0, 1]. One that finds less,
            or no larger a share of them than of the good images it may call anomalous, is called unfit, and the command
            fails after it has written its report; 0 never fails.
        strengths: Strengths of the defects, each in (0, 1]; for a RuleBasedGenerator.
        per_cell: Defects drawn of each family at each strength, >= 1; other generators draw as many as one family.
        max_normals: Largest number of normals to use, evenly spread over the sorted files.
        batch_size: Images scored at once, >= 1.
        accelerator: Device of the model: auto, cpu, gpu.
        seed: Seed of the halves and of the defects.

    Raises:
        ValueError: If an argument is wrong, before any work; or, at the end, if the model is unfit.
    """
    from anomalib_synth.evidence.checkpoints import load_model, read_checkpoint
    from anomalib_synth.evidence.held_out import (
        check_count,
        check_normals_not_learned,
        check_not_trained_on,
        list_normals,
        list_readable,
        list_real,
    )
    from anomalib_synth.evidence.outcome import evaluate
    from anomalib_synth.evidence.planning import Plan, check_known, measure_rounding
    from anomalib_synth.evidence.scoring import describe_order, score_items
    from anomalib_synth.evidence.training_run import read_inference, tile
    from anomalib_synth.host.thresholds import check_post_processor, has_pixel_threshold

    strengths = tuple(sorted(set(strengths)))
    _check_numbers(false_alarm_rate, min_recall, strengths, per_cell, max_normals, batch_size)
    _check_out(out, checkpoint)
    loaded = read_checkpoint(checkpoint)
    network, config = load_model(model, checkpoint, loaded)
    check_post_processor(network)
    inference = read_inference(config) if config and tiler is None else tile(tiler or {})
    held_out, copies = list_normals(normals, max_normals)
    check_count(len(held_out), false_alarm_rate)
    check_not_trained_on(held_out, train_normals, config)
    notes = [inference.describe(), describe_order(network)]
    notes += [f"{copies} normals are copies of others and were left out."] if copies else []
    check_normals_not_learned(held_out, loaded)
    real = [] if defects is None else list_real(defects, loaded)
    trained: list[Path] = []
    if train_normals and config is None and tiler is None and hasattr(network.model, "tiler"):
        trained = evenly_spread(list_readable("train_normals", train_normals), _SHOWN)
    plan = Plan(held_out, real, generator, trained=trained, strengths=strengths, per_cell=per_cell, seed=seed)

    def score(items: Iterable[Item], size: int) -> None:
        score_items(network, checkpoint, items, inference=inference, batch_size=size, accelerator=accelerator)

    with _progress() as progress:
        score(plan.items(progress), batch_size)
    check_known(plan.rows, type(network).__name__)
    rounding = measure_rounding(plan.rows, false_alarm_rate, score, batch_size=batch_size)
    with_pixels = has_pixel_threshold(loaded)
    outcome = evaluate(plan.rows, false_alarm_rate, with_pixels=with_pixels, rounding=rounding, min_recall=min_recall)
    settings = {
        "version": __version__,
        "checkpoint": str(checkpoint),
        "model": type(network).__name__,
        "normals": str(normals),
        "defects": None if defects is None else str(defects),
        "inference": inference.describe(),
        "generator": generator.config,
        "strengths": list(strengths),
        "per_cell": per_cell,
        "max_normals": max_normals,
        "seed": seed,
    }
    out.mkdir(parents=True, exist_ok=True)
    _finish(outcome, plan.rows, loaded, settings, notes, out)
    if outcome.unfit and min_recall > 0:
        msg = f"The model is not fit for use: {outcome.unfit} The report is in {out}; --min_recall 0 never fails."
        raise ValueError(msg)


def _finish(
    outcome: Outcome,
    rows: Sequence[Row],
    loaded: dict[str, Any],
    settings: dict[str, Any],
    notes: Sequence[str],
    out: Path,
) -> None:
    """Write the new checkpoint and the results, and print them."""
    from anomalib_synth.evidence.checkpoints import save_checkpoint
    from anomalib_synth.evidence.held_out import CALIBRATION
    from anomalib_synth.evidence.recall_plot import draw_calibration
    from anomalib_synth.evidence.results import print_results, write_results
    from anomalib_synth.host.thresholds import write_thresholds

    changes = write_thresholds(loaded, image=outcome.image, pixel=outcome.pixel)
    loaded[CALIBRATION] = {**settings, **outcome.to_dict()}
    save_checkpoint(loaded, out / "calibrated.ckpt")
    write_results(outcome, rows, settings, out)
    draw_calibration(
        outcome,
        settings["model"],
        [row.score for row in rows if row.role == "measure"],
        [row.score for row in rows if row.role == "real"],
        out / "recall.png",
    )
    print_results(outcome, [note for note in [*notes, *changes] if note], out)


def _progress() -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    text = TextColumn("{task.description}")
    return Progress(text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), transient=True)


def _check_out(out: Path, checkpoint: Path) -> None:
    if (out / "calibrated.ckpt").resolve() == checkpoint.resolve():
        msg = f"`out` must not be the folder of a checkpoint of that name, got {str(out)!r}. Name another folder."
        raise ValueError(msg)
    if out.exists() and not out.is_dir():
        msg = f"`out` must be a folder, got the file {str(out)!r}. Name another one."
        raise ValueError(msg)


def _check_numbers(
    false_alarm_rate: float,
    min_recall: float,
    strengths: Sequence[float],
    per_cell: int,
    max_normals: int,
    batch_size: int,
) -> None:
    if not 0 < false_alarm_rate < 1:
        msg = f"`false_alarm_rate` must be in (0, 1), got {false_alarm_rate}. 0.05 means one good image in twenty."
        raise ValueError(msg)
    if not 0 <= min_recall <= 1:
        msg = f"`min_recall` must be in [0, 1], got {min_recall}. 0.5 means half of the strongest defects."
        raise ValueError(msg)
    if not strengths or not all(0 < strength <= 1 for strength in strengths):
        msg = f"`strengths` must be numbers in (0, 1], at least one, got {list(strengths)}."
        raise ValueError(msg)
    for name, value in (("per_cell", per_cell), ("max_normals", max_normals), ("batch_size", batch_size)):
        if value < 1:
            msg = f"`{name}` must be >= 1, got {value}."
            raise ValueError(msg)
