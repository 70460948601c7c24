"""The command `anomalib-synth calibrate`: a threshold for a false-alarm rate, and which defects it finds."""

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
    """Set a trained model's threshold for a false-alarm rate, and measure how faint a defect it then finds.

    The normals must not be training images: a model scores those lower than others, so the threshold would be far too
    low. They are compared, by content, with every normal image that the run's datamodule could have trained on. Images
    are scored as in `anomalib predict`: with the checkpoint's transform, and with everything in the run's configuration
    that changes predictions (the tiler, callbacks of your own, the precision).

    Half of the normals (chosen by content and seed) set the threshold as a split-conformal quantile, so that the
    probability of a false alarm is at most the target. This guarantee is marginal: it holds on average over the choice
    of the normals, for images of the same kind. A single threshold may give more false alarms; the report says how many
    more are likely with so many normals. The other half of the normals measures the rate. The threshold lies above the
    score of the normal that sets it, by more than a score varies between batch sizes. Defects are drawn on the
    measuring half at the size of the files, the same ones at every strength. Recall is the share that is found of the
    defects that pass the generator's checks and that the model's own transform does not crop away.

    Writes to the folder `out`: `calibrated.ckpt`, a copy of the checkpoint with which `anomalib predict` uses the new
    thresholds (validating it again would overwrite them); `calibration.html` (whether it is fit for use, and what it
    misses, with pictures); `recall.png`, `recall.csv`, `scores.csv` and `calibration.json`.

    Args:
        checkpoint: Checkpoint of any anomalib model (.ckpt), as `anomalib train` saves it. It is not changed.
        normals: Folder with good images that the model was NOT trained on, searched recursively. A rate of 5 % needs 38
            of them, 1 % needs 198.
        out: Folder for the results, outside the folders of images.
        model: Class path of the model (anomalib.models.Patchcore), or the YAML configuration it was trained with. Not
            needed if `anomalib train` left its config.yaml above the checkpoint.
        generator: The generator that draws the defects. Of a RuleBasedGenerator, each family is drawn at each strength;
            any other generator counts as one kind of defect.
        defects: Folder with a few real defects, searched recursively. A warning tells if their scores differ from those
            of the synthetic ones.
        train_normals: Folder with the training images, to check that none is among the normals; needed if no
            configuration names them.
        tiler: Settings of anomalib's TilerConfigurationCallback, such as {tile_size: 256, stride: 128}, if the model
            was trained with it and no configuration says so; {} for no tiler.
        false_alarm_rate: Target share of good images that may be called anomalous, in (0, 1).
        min_recall: Least share of the strongest defects that a model must find to be fit for use, in [0, 1]. A model is
            also unfit if that share is not above the share of good images that it may call anomalous. For an unfit
            model the command fails after it has written its report; with 0 it never fails.
        strengths: Strengths of the defects, each in (0, 1]; for a RuleBasedGenerator.
        per_cell: Defects drawn of each family at each strength, >= 1; other generators draw as many as one family.
        max_normals: Largest number of normals to use, evenly spread over the sorted files.
        batch_size: Images scored at once, >= 1.
        accelerator: Device of the model: auto, cpu, gpu.
        seed: Seed of the choice of the halves and of the defects.

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
        msg = (
            f"`out` must not hold the checkpoint itself, which calibrated.ckpt would replace, got {str(out)!r}. Name "
            "another folder."
        )
        raise ValueError(msg)
    check_writable_folder("out", out)
