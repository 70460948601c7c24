"""The command `anomalib-synth calibrate`: a threshold that keeps its false-alarm rate, and what it finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from anomalib_synth.commands.preconditions import check_outside, check_writable_folder

_STRENGTHS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def calibrate(
    checkpoint: Path,
    normals: Path,
    *,
    out: Path,
    model: str | None = None,
    generator: Any = None,
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
    false alarm is at most the target. That guarantee is marginal: it holds on average over which normals set the
    threshold, for images of the same kind; one threshold may alarm more often, and the report says how much more is
    likely with so many normals. The other half measures the rate that results. The threshold stands above the normal
    that sets it by more than a score moves between batch sizes. Defects are drawn on the measuring half at the
    size of the files, the same ones at every strength; recall is the share found of those that are visible by the
    generator's checks and not cropped away by the model's own transform.

    Writes to the folder `out`: `calibrated.ckpt`, a copy of the checkpoint with which `anomalib predict` labels by the
    new thresholds (validating it again would overwrite them), `calibration.html` (fit for use or not, what it misses,
    with pictures), `recall.png`, `recall.csv`, `scores.csv` and `calibration.json`.

    Args:
        checkpoint: Checkpoint of any anomalib model (.ckpt), as `anomalib train` saves it. It is not changed.
        normals: Folder with good images that the model was NOT trained on, searched recursively. 5 % false alarms take
            38 of them, 1 % take 198.
        out: Folder for the results, outside those of the images.
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
    from anomalib_synth.calibration.run import CalibrationSettings, run_calibration
    from anomalib_synth.generators import RuleBasedGenerator
    from anomalib_synth.report.calibration_files import print_results, write_calibration

    settings = CalibrationSettings(
        false_alarm_rate=false_alarm_rate, min_recall=min_recall, strengths=strengths, per_cell=per_cell,
        max_normals=max_normals, batch_size=batch_size, accelerator=accelerator, seed=seed,
    )  # fmt: skip
    check_outside(out, normals=normals, defects=defects, train_normals=train_normals)
    _check_out(out, checkpoint)
    generator = RuleBasedGenerator() if generator is None else generator
    calibration = run_calibration(
        checkpoint, normals, generator, settings,
        model=model, defects=defects, train_normals=train_normals, tiler=tiler,
    )  # fmt: skip
    write_calibration(calibration, out)
    outcome = calibration.outcome
    print_results(outcome, calibration.notes, out)
    if outcome.unfit and min_recall > 0:
        msg = f"The model is not fit for use: {outcome.unfit} The report is in {out}; --min_recall 0 never fails."
        raise ValueError(msg)


def _check_out(out: Path, checkpoint: Path) -> None:
    if (out / "calibrated.ckpt").resolve() == checkpoint.resolve():
        msg = f"`out` must not be the folder of a checkpoint of that name, got {str(out)!r}. Name another folder."
        raise ValueError(msg)
    check_writable_folder("out", out)
