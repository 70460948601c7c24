"""The command `anomalib-synth learn`: a detector learns what it missed, and what it alarmed for without a defect."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def learn(
    detector: Path,
    *,
    missed: Path | None = None,
    false_alarms: Path | None = None,
    marks: Path | None = None,
    normals: Path | None = None,
    false_alarm_rate: float | None = None,
    steps: int = 200,
    undo: bool = False,
    accelerator: str = "auto",
    seed: int = 0,
) -> None:
    """Teach a detector the images it missed, and those it alarmed for without a defect, in seconds.

    For a DiscriminativePadim that `anomalib train` left, calibrated or not. The first time, what it was taught from is
    collected: the features of its training images, of defects drawn on them and on held-out images; that takes a minute
    or two, and some 500 KB an image. From then on learning takes seconds. Its heads are trained on from where they are,
    with what they knew before among the images; what is normal stays as it was fitted. The threshold is set anew on
    held-out good images, and a table says what changed: those images before and after, false alarms, recall by family,
    and everything that was found before and is not now.

    The detector stays as it is. `learned/detector.ckpt` in its folder is the new version, for `anomalib predict
    --ckpt_path`; every version is kept, and `--undo true` goes back by one.

    Args:
        detector: Folder of `anomalib train` or `anomalib-synth calibrate`, or the checkpoint in it.
        missed: Folder with images of defects it missed, searched recursively, or one image; or a store, such as
            `look_alikes` makes, of which the kept samples are learned.
        false_alarms: Folder with good images it alarmed for, or one image.
        marks: Where the defects are marked; by default it is looked for beside them, and without any the detector finds
            the place itself. See docs/real_defects.md.
        normals: Folder with good images that the detector was NOT trained on, for the threshold. By default those that
            the run held out to validate it.
        false_alarm_rate: Target share of good images that may alarm, in (0, 1); by default that of the calibration,
            else 0.05, or the least that there are held-out images for.
        steps: Training steps, >= 1.
        undo: Go back to the version before.
        accelerator: Device: auto, cpu, gpu.
        seed: Seed of the order, of the drawn defects and of the halves of the held-out images.

    Raises:
        ValueError: If an argument is wrong, or an image is one that the detector is measured on.
    """
    from anomalib_synth.learning.versions import DetectorFolder

    _check_arguments(missed, false_alarms, false_alarm_rate, steps, undo=undo)
    folder = DetectorFolder(detector)
    with folder.locked():
        if undo:
            version = folder.undo()
            print(f"{folder.current} is version {version.number} again.")
            return
        _learn(
            folder, missed, false_alarms, marks, normals,
            rate=false_alarm_rate, steps=steps, accelerator=accelerator, seed=seed,
        )  # fmt: skip


def _learn(
    folder: Any,
    missed: Path | None,
    false_alarms: Path | None,
    marks: Path | None,
    normals: Path | None,
    *,
    rate: float | None,
    steps: int,
    accelerator: str,
    seed: int,
) -> None:
    from anomalib_synth.learning.changes import print_changes
    from anomalib_synth.learning.taught_detector import TaughtDetector
    from anomalib_synth.progress import make_progress, printable

    taught = TaughtDetector(folder, accelerator=accelerator, seed=seed)
    taught.list_new(missed, marks, false_alarms)
    with make_progress(transient=True) as progress:
        taught.collect(normals, progress)
        new = taught.look(progress)
        for example in taught.forget_measured(new):
            name = printable(example.name)
            print(f"{name} was one of the held-out good images; it is learned now and no longer measures.")
        rate = taught.choose_rate(rate)
        changes = taught.learn(new, rate=rate, steps=steps, progress=progress)
    print_changes(changes, taught.measured)
    if taught.forgotten:
        print(
            f"{taught.forgotten} images of earlier versions were not among what it was taught: their features are "
            "lost. Name them in `missed` or `false_alarms` once more."
        )
    version = taught.save(changes)
    print(
        f"Wrote version {version.number} to {folder.current}. Predict with it: anomalib predict --ckpt_path "
        f"{folder.current}; go back: anomalib-synth learn --detector {folder.folder} --undo true"
    )


def _check_arguments(
    missed: Path | None, false_alarms: Path | None, rate: float | None, steps: int, *, undo: bool
) -> None:
    if undo and (missed or false_alarms):
        msg = "`undo` goes back by a version and learns nothing. Leave `missed` and `false_alarms` out, or `undo`."
        raise ValueError(msg)
    if not undo and missed is None and false_alarms is None:
        msg = "`missed` or `false_alarms` must name images to learn, or `undo` must be true. Nothing was asked for."
        raise ValueError(msg)
    if rate is not None and not 0 < rate < 1:
        msg = f"`false_alarm_rate` must be in (0, 1), got {rate}. 0.05 means one good image in twenty."
        raise ValueError(msg)
    if steps < 1:
        msg = f"`steps` must be >= 1, got {steps}."
        raise ValueError(msg)
