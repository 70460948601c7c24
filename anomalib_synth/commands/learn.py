"""The command `anomalib-synth learn`: a detector learns from its missed defects and its false alarms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from anomalib_synth.commands.limits import check_numbers


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
    """Teach a detector its missed defects and its false alarms, in seconds.

    The detector must be a DiscriminativePadim that `anomalib train` trained, calibrated or not. The first call collects
    what it was trained on: the features of its training images, and of defects drawn on these and on held-out images.
    That takes a minute or two, and about 500 KB for each image; later calls take seconds. The detector's heads continue
    training on the new images together with the old ones; its model of normal images does not change. The threshold is
    set again on held-out good images. A table says what changed: the scores of the new images before and after, false
    alarms, recall by family, and every defect that was found before but is not found now.

    The detector itself stays as it is. The new version is `learned/detector.ckpt` in its folder, for `anomalib predict
    --ckpt_path`. Every version is kept, and `--undo` goes back by one.

    Args:
        detector: Folder of `anomalib train`, or of `anomalib-synth calibrate` or `build`; or the checkpoint in it.
        missed: Folder with images of missed defects, searched recursively, or one image; or a store, such as
            `look_alikes` makes, whose kept samples are learned.
        false_alarms: Folder with good images that gave a false alarm, or one image.
        marks: Where the defects are marked; by default, beside the images. If a defect has no mark, the detector finds
            its place itself. See docs/real_defects.md.
        normals: Folder with good images that the detector was NOT trained on, for the threshold. By default those that
            the run held out for validation.
        false_alarm_rate: Target share of good images that may give a false alarm, in (0, 1); by default that of the
            calibration, else 0.05, or the lowest rate that the held-out images allow.
        steps: Training steps, >= 1.
        undo: Go back to the previous version.
        accelerator: Device: auto, cpu, gpu.
        seed: Seed of the order of the images, of the drawn defects and of the halves of the held-out images.

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
            print(f"{name} was a held-out good image; the detector learns it now, so it no longer measures.")
        rate = taught.choose_rate(rate)
        changes = taught.learn(new, rate=rate, steps=steps, progress=progress)
    print_changes(changes, taught.measured)
    if taught.forgotten:
        print(
            f"The features of {taught.forgotten} images that earlier versions had learned are lost, so this version "
            "did not learn them. Give these images in `missed` or `false_alarms` again."
        )
    version = taught.save(changes)
    print(
        f"Wrote version {version.number} to {folder.current}. Predict with it: anomalib-synth predict --detector "
        f"{folder.folder} --images IMAGES --out FOLDER; go back: anomalib-synth learn --detector {folder.folder} --undo"
    )


def _check_arguments(
    missed: Path | None, false_alarms: Path | None, rate: float | None, steps: int, *, undo: bool
) -> None:
    if undo and (missed or false_alarms):
        msg = "`undo` goes back by one version and learns nothing. Leave `missed` and `false_alarms` out, or `undo`."
        raise ValueError(msg)
    if not undo and missed is None and false_alarms is None:
        msg = "`missed` or `false_alarms` must name images to learn, or `undo` must be given, got none of them."
        raise ValueError(msg)
    check_numbers({"false_alarm_rate": rate, "steps": steps})
