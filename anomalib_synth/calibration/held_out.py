"""Chooses the good images of a calibration: none that the model was trained on, none twice, and enough of them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_synth.calibration.statistics import least_count
from anomalib_synth.calibration.training_run import training_images
from anomalib_synth.data.held_out import find_learned
from anomalib_synth.defects import list_defect_images
from anomalib_synth.generators.prepared import evenly_spread
from anomalib_synth.images import (
    Normal,
    UnreadableImageError,
    WhitePoint,
    allow_large_images,
    check_host_agrees,
    decode_image,
    digest_file,
    digest_images,
    digest_pixels,
    find_white_point,
    is_deep_file,
    list_images,
    read_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from anomalib_synth.generators import AnomalyGenerator

CALIBRATION = "anomalib_synth_calibration"  # in a checkpoint: how its thresholds were set
_LEAST = 10


def list_readable(argument: str, folder: Path, shown: WhitePoint = WhitePoint()) -> list[Path]:  # noqa: B008
    """Return the image files of a folder, searched recursively, sorted.

    Raises:
        ValueError: If there is none, or anomalib's own reader would read one of them differently.
    """
    paths = list_named(folder, argument)
    check_host_agrees(paths, argument, shown=shown)
    return paths


def list_named(folder: Path, argument: str) -> list[Path]:
    """Return the image files of a folder, and say what else lies in it."""
    listing = list_images(folder, argument)
    for line in listing.notes():
        print(line)
    return listing.paths


def list_normals(
    folder: Path,
    limit: int,
    shown: WhitePoint = WhitePoint(),  # noqa: B008
) -> tuple[list[Normal], int]:
    """Return the distinct normals of a folder, and how many copies of others were left out.

    Args:
        folder: The folder.
        limit: Largest number of files that are looked at, evenly spread over the sorted files.
        shown: White by which the model was shown images of more than 8 bits, for an error.
    """
    paths = evenly_spread(list_readable("normals", folder, shown), limit)
    distinct: dict[str, Path] = {}
    for path, content in zip(paths, digest_images(paths), strict=True):
        distinct.setdefault(content, path)
    normals = [Normal(path=path, name=path.name, content=content) for content, path in distinct.items()]
    return normals, len(paths) - len(distinct)


def list_real(folder: Path, checkpoint: dict[str, Any], shown: WhitePoint = WhitePoint()) -> list[Path]:  # noqa: B008
    """Return the images of real defects in a folder: no masks, and none that the model has learned.

    Raises:
        ValueError: If there is none, or the model has learned one of them, by :class:`RealDefectsCallback` or `learn`.
    """
    paths = list_defect_images(folder)
    check_host_agrees(paths, "defects", shown=shown)
    _check_not_learned(paths, checkpoint, "defects")
    return paths


def check_normals_not_learned(normals: Sequence[Normal], checkpoint: dict[str, Any]) -> None:
    """Refuse normals that the model has learned as false alarms.

    Raises:
        ValueError: Naming them.
    """
    _check_not_learned([normal.path for normal in normals], checkpoint, "normals")


def check_generator_not_learned(generator: AnomalyGenerator, checkpoint: dict[str, Any]) -> None:
    """Refuse to measure by samples of real defects that the model has learned.

    Raises:
        ValueError: Naming them.
    """
    learned = find_learned(checkpoint)
    seen = [file for digest, file in generator.defect_digests.items() if digest in learned] if learned else []
    if seen:
        msg = (
            f"`generator` must not draw real defects that the model has learned, got {len(seen)}: "
            f"{', '.join(map(repr, seen[:3]))}. It finds those more easily than new ones. Give it others, or leave it "
            "out."
        )
        raise ValueError(msg)


def _check_not_learned(paths: list[Path], checkpoint: dict[str, Any], argument: str) -> None:
    learned = find_learned(checkpoint)
    if not learned:
        return
    contents = zip(paths, digest_images(paths), strict=True)  # of what a store was made of, the file's bytes are known
    seen = [path for path, content in contents if content in learned or digest_file(path) in learned]
    if seen:
        msg = (
            f"`{argument}` must not hold images that the model has learned, got {len(seen)} of {len(paths)}: "
            f"{', '.join(repr(str(path)) for path in seen[:3])}. It knows them, so they would say nothing about new "
            "ones. Take them away."
        )
        raise ValueError(msg)


def check_count(count: int, rate: float) -> None:
    """Refuse fewer normals than the rate takes; half of them set the threshold.

    Raises:
        ValueError: If there are too few; the message names the number needed, and the least rate for this number.
    """
    if count < _LEAST:
        msg = f"`normals` must hold at least {_LEAST} different images to say anything about a rate, got {count}."
        raise ValueError(msg)
    if count // 2 < least_count(rate):
        least_rate = 1 / (count // 2 + 1)
        msg = (
            f"`false_alarm_rate` {rate:g} takes at least {2 * least_count(rate)} different normals (half of them set "
            f"the threshold, half measure it), got {count}. Add normals, or ask for a rate of at least "
            f"{_round_up(least_rate):g}."
        )
        raise ValueError(msg)


def check_not_trained_on(
    normals: list[Normal], folder: Path | None, config: Path | None, white: WhitePoint | None = None
) -> None:
    """Refuse normals that have the content of an image the model may have been trained on, under whatever name.

    Args:
        normals: The held-out normals.
        folder: Folder with the training images, if the user named it.
        config: Configuration the model was trained with, if there is one.
        white: White by which it was shown training images of more than 8 bits; without values, as found in them.

    Raises:
        ValueError: If there is such a normal, or nothing tells which images the model was trained on.
    """
    trained: list[str] | list[Path] = [] if folder is None else list_named(folder, "train_normals")
    unknown = "no training configuration was found"
    if config is not None:
        try:
            trained = [*map(str, trained), *training_images(config, known_folder=folder is not None)]
        except ValueError as error:
            unknown = str(error)
    if not trained:
        msg = (
            f"`train_normals` must name the folder with the training images, as {unknown}: a threshold set on images "
            "that the model was trained on would be too low."
        )
        raise ValueError(msg)
    known = {*digest_images(trained), *_digest_copies(map(Path, trained), white or WhitePoint())}
    seen = [normal for normal in normals if normal.content in known]
    if seen:
        msg = (
            f"`normals` must not hold training images, got {len(seen)} of {len(normals)} that are, or may be, such as "
            f"{str(seen[0].path)!r}. A model scores what it was trained on lower than any new image, so the threshold "
            "would be too low. Give images that were kept out of the training folder; what the run itself held out of "
            "it at random cannot be told from what it trained on."
        )
        raise ValueError(msg)


def _digest_copies(trained: Iterable[Path], white: WhitePoint) -> set[str]:
    """Return the digests of the copies in 8 bits of deeper training images, which the model was shown."""
    deep = [path for path in trained if is_deep_file(path)]
    if white == WhitePoint():
        white = find_white_point(deep)
    found = set()
    for path in deep:
        with suppress(UnreadableImageError), allow_large_images():
            found.add(digest_pixels(decode_image(read_bytes(path), white_point=white)))
    return found


def _round_up(rate: float) -> float:
    return -(-rate * 1000 // 1) / 1000
