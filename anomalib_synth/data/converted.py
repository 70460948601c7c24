"""Copies in 8 bits of a datamodule's deeper images, so that a model trains on what everybody here reads.

anomalib's own reader clips what has more than 8 bits a channel. The copies take the place of the files in the
datamodule's listing; which file a copy was made of stays known, as leaks are found by what a file shows.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from anomalib_synth.host.splits import SPLITS
from anomalib_synth.images import (
    UnreadableImageError,
    WhitePoint,
    allow_large_images,
    decode_image,
    find_white_point,
    hash_bytes,
    is_deep_file,
    read_bytes,
)
from anomalib_synth.images.reading import open_image
from anomalib_synth.images.samples import orientation
from anomalib_synth.progress import track
from anomalib_synth.store import encode_png
from anomalib_synth.store.files import write_whole

if TYPE_CHECKING:
    from anomalib.data import AnomalibDataModule

FIND = "find"
_QUIET = 64
_NAME = 16


def parse_white_point(value: float | str | None) -> WhitePoint | None:
    """Read the argument `white_point`: None, ``"find"`` (which gives a white point without values), or a value.

    Raises:
        ValueError: If it is something else.
    """
    if value is None:
        return None
    if isinstance(value, str):
        if value == FIND:
            return WhitePoint()
        msg = f'`white_point` must be a number such as 4095, "{FIND}" or null, got {value!r}.'
        raise ValueError(msg)
    return WhitePoint.of_value(value)


def convert_deep_images(base: AnomalibDataModule, white: WhitePoint, folder: Path) -> tuple[WhitePoint, dict[str, str]]:
    """Let a datamodule that has listed its images, and not split them, list copies of those of more than 8 bits.

    Args:
        base: The datamodule; the samples of its datasets are replaced.
        white: White; one without values is found in the training images.
        folder: Where the copies are kept; each white has a folder of its own there.

    Returns:
        White, and the file by its copy. What cannot be read stays listed as it is.
    """
    datasets = [data for name in SPLITS if (data := getattr(base, f"{name}_data", None)) is not None]
    listed = sorted({path for dataset in datasets for path in dataset.samples.image_path})
    deep = [path for path in listed if is_deep_file(Path(path))]
    if not deep:
        return WhitePoint(), {}
    if white == WhitePoint():
        white = find_white_point(map(Path, base.train_data.samples.image_path))
    place = folder / f"white_{white.integer}_{white.floating}"
    copies = {}
    for path in track(deep, "Converting images", disable=len(deep) < _QUIET):
        try:
            with allow_large_images():
                copies[path] = str(_convert(Path(path), white, place))
        except UnreadableImageError:
            continue  # the check of all images names it
    for dataset in datasets:
        dataset.samples = dataset.samples.assign(
            image_path=[copies.get(path, path) for path in dataset.samples.image_path]
        )
    return white, {copy: path for path, copy in copies.items()}


def _convert(path: Path, white: WhitePoint, place: Path) -> Path:
    """Return the copy of a file, written if it is not there; its name tells the content, and ends as the file's."""
    data = read_bytes(path)
    with open_image(data) as image:
        if image.format != "TIFF" and orientation(image) != 1:
            msg = "turned by its EXIF orientation, and its mask may not be"
            raise UnreadableImageError(msg)
    target = place / hash_bytes(data)[:_NAME] / path.parent.name / f"{path.stem}.png"
    if not target.is_file():
        pixels = encode_png(decode_image(data, white_point=white))
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, pixels)
    return target
