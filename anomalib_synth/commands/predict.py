"""The command `anomalib-synth predict`: judges images, with a verdict, a picture and a crop for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from anomalib_synth.commands.preconditions import check_writable_folder

_SHOWN = 3


def predict(
    detector: Path,
    images: Path,
    *,
    out: Path,
    pictures: Literal["defects", "all", "none"] = "defects",
    crop: int = 128,
    watch: bool = False,
    interval: float = 1.0,
    until_idle: float | None = None,
    bit_depth: int | None = None,
    model: str | None = None,
    tiler: dict[str, Any] | None = None,
    batch_size: int = 8,
    accelerator: str = "auto",
    trust: bool = False,
) -> None:
    """Judge images: score, threshold, verdict and crop of each, in CSV and JSON Lines, with pictures.

    A checkpoint gives the same scores as in `calibrate` and `anomalib predict`; those of an OpenVINO or ONNX export
    differ only by rounding. Images of any depth and orientation are read as in all commands. An image that cannot be
    read is listed with the reason, and the run goes on.

    Writes to the folder `out`: `predictions.jsonl` and `predictions.csv`, a row for each image as it is judged;
    `pictures/`, with the outline of what was found and a box around its most anomalous region; `crops/`, with that
    region cut out of the image. If a run was stopped, the same command continues it: images that the same detector has
    judged are not judged again.

    Exit status: 0 if all images are good; 3 if a defect was found; 4 if an image could not be judged, whatever the
    others are; 1 for wrong input, 2 for wrong arguments, 130 if stopped before the end. With `--watch`, Ctrl-C, SIGTERM
    and `until_idle` are the normal end: images being judged are finished, and the status is 0, 3 or 4.

    Args:
        detector: Folder of `anomalib train`, or of `anomalib-synth calibrate`, `learn` or `build`; or a checkpoint
            (.ckpt), or an exported model (.xml of OpenVINO, .onnx, .pt). In a folder the newest version of `learn` is
            used, else the calibrated checkpoint, else the only checkpoint, else the only export.
        images: Folder with images, searched recursively, or one image.
        out: Folder for the results, outside the images.
        pictures: Which images get a picture and a crop: defects, all or none.
        crop: Least side of a crop in pixels, >= 16.
        watch: Keep looking for new images until Ctrl-C. A file is judged once two looks in a row find it unchanged.
        interval: Seconds between two looks, > 0.
        until_idle: With `watch`: end if no new image has come for so many seconds, >= 0.
        bit_depth: Bit depth of the camera, 8 to 16, for images of more than 8 bits; by default the one that `build`
            kept with the detector. It must be that of the training images.
        model: Class path of the model (anomalib.models.Patchcore), or the YAML configuration it was trained with. Not
            needed if `anomalib train` left its config.yaml above the checkpoint.
        tiler: Settings of anomalib's TilerConfigurationCallback, such as {tile_size: 256, stride: 128}, if the model
            was trained with it and no configuration says so; {} for no tiler.
        batch_size: Images judged at once, >= 1.
        accelerator: Device: auto, cpu, gpu.
        trust: Read a torch export (.pt). It is a pickle, which may run any program, so read only your own.

    Raises:
        ValueError: If an argument is wrong, the detector has no threshold, or `out` holds another detector's verdicts.
        SystemExit: With status 3 or 4, see above.
    """
    from anomalib_synth.images import IS_MASK, WhitePoint, describe_left_out
    from anomalib_synth.prediction.journal import Journal
    from anomalib_synth.prediction.opening import open_detector
    from anomalib_synth.prediction.run import Prediction, PredictionSettings
    from anomalib_synth.prediction.watching import FolderSource, StopRequest, Watcher

    settings = PredictionSettings(pictures=pictures, crop=crop, batch_size=batch_size)
    _check_arguments(images, out, interval, until_idle, watch=watch)
    given = None if bit_depth is None else WhitePoint.of_bit_depth(bit_depth)
    stop = StopRequest()
    source: Any
    if watch:
        source, count = Watcher(images, interval=interval, until_idle=until_idle, stop=stop), None
    else:
        source = FolderSource(images)
        for line in describe_left_out(dict.fromkeys(source.listing.masks, IS_MASK), "images"):
            print(line)
        count = len(source.listing.files) + len(source.listing.foreign)
    opened = open_detector(detector, model=model, tiler=tiler, accelerator=accelerator, trust=trust)
    white_point = opened.white_point if given is None else given
    journal = Journal(out, opened.about, white_point)
    with journal.opened():
        say, close = _make_voice(count)
        prediction = Prediction(opened, journal, settings, white_point=white_point, stop=stop, say=say)
        try:
            summary = prediction.run(source)
        finally:
            close()
    if stop.asked and not watch:
        raise KeyboardInterrupt
    _print_summary(summary, out, watch=watch)
    if summary.status:
        raise SystemExit(summary.status)


def _check_arguments(images: Path, out: Path, interval: float, until_idle: float | None, *, watch: bool) -> None:
    from anomalib_synth.prediction.journal import PICTURE_FOLDERS

    if out.resolve().is_relative_to(images.resolve()):
        msg = f"`out` must lie outside the images, or its pictures would be judged, got {str(out)!r}."
        raise ValueError(msg)
    for name in PICTURE_FOLDERS:
        if images.resolve().is_relative_to((out / name).resolve()):
            msg = (
                f"`images` must lie outside the folders that `predict` fills, got {str(images)!r} in "
                f"{str(out / name)!r}, whose files it replaces. Name another `out`."
            )
            raise ValueError(msg)
    check_writable_folder("out", out)
    if not interval > 0:
        msg = f"`interval` must be > 0, got {interval}."
        raise ValueError(msg)
    if until_idle is not None and not until_idle >= 0:
        msg = f"`until_idle` must be >= 0, got {until_idle}."
        raise ValueError(msg)
    if until_idle is not None and not watch:
        msg = "`until_idle` needs `--watch`. Give it too, or leave `until_idle` out."
        raise ValueError(msg)
    if watch and not images.is_dir():
        msg = f"`images` must be a folder to watch, got {str(images)!r}. Make it first."
        raise ValueError(msg)


def _make_voice(count: int | None) -> tuple[Any, Any]:
    """Return functions that report a row and that end the report: a bar for ``count`` images, or a line for each."""
    from anomalib_synth.progress import make_progress

    if count is None:
        print("Watching for images; Ctrl-C ends it.", flush=True)
        return _say_row, lambda: None
    progress = make_progress(rate=True, transient=True)
    progress.start()
    task = progress.add_task("Judging images", total=count)
    return lambda row: progress.advance(task), progress.stop


def _say_row(row: dict[str, Any] | None) -> None:
    from anomalib_synth.progress import printable

    if row is not None:
        what = row["reason"] if row["verdict"] == "unreadable" else f"{row['score']:.3f}"
        print(printable(f"{row['time']} {row['verdict']:<10} {row['file']} ({what})"), flush=True)


def _print_summary(summary: Any, out: Path, *, watch: bool) -> None:
    from anomalib_synth.progress import printable

    counts, failed = summary.counts, summary.failed
    total = counts["good"] + counts["defect"] + len(failed)
    print(
        f"{total} images: {counts['good']} good, {counts['defect']} with a defect, {len(failed)} not judged"
        + (f"; {summary.known} of them were judged before." if summary.known else ".")
    )
    for name, reason in list(failed.items())[:_SHOWN]:
        print(printable(f"Not judged: {name}: {reason}."))
    if len(failed) > _SHOWN:
        print(f"... and {len(failed) - _SHOWN} more, listed as unreadable.")
    if summary.judged and not watch:
        print(f"{summary.judged / max(summary.seconds, 1e-9):.1f} images a second.")
    print(f"The rows are in {out / 'predictions.csv'} and predictions.jsonl, pictures and crops beside them.")
