"""Reads images of a folder one at a time, all with the same white point."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from anomalib_synth.images.files import open_file
from anomalib_synth.images.formats import HEAD_BYTES, UnreadableImageError
from anomalib_synth.images.normals import ImageReader
from anomalib_synth.images.reading import allow_large_images, holds_header, measure_image, open_image, read_bytes
from anomalib_synth.images.samples import is_deep
from anomalib_synth.images.white_point import WhitePoint
from anomalib_synth.progress import track

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    import numpy as np

    from anomalib_synth.images.sizes import ImageSize

_QUIET = 64


class ImageFolder:
    """Images by name, read while iterating; can be iterated more than once.

    Args:
        files: Path of each file, by name.
        image_size: Size to resize to; None keeps the size of each image.
        white_point: White point of files of more than 8 bits; by default it is found in them.
        description: What the progress bar says.
        quiet_below: Number of files from which on the bar is shown.

    Attributes:
        left_out: For each file that could not be read, its name and the reason; filled while iterating.
    """

    def __init__(
        self,
        files: Mapping[str, Path],
        *,
        image_size: ImageSize | None = None,
        white_point: WhitePoint | None = None,
        description: str = "Reading",
        quiet_below: int = _QUIET,
    ) -> None:
        self.files = dict(files)
        self.left_out: dict[str, str] = {}
        self._description = description
        self._quiet_below = quiet_below
        if white_point is None or white_point == WhitePoint():
            white_point = find_white_point(self.files.values())
        self.reader = ImageReader(image_size, white_point)

    def __iter__(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield the name and the image (H, W, 3) uint8 of each readable file."""
        shown = track(self.files.items(), self._description, disable=len(self.files) < self._quiet_below)
        for name, path in shown:
            try:
                with allow_large_images():
                    pixels = self.reader.decode(read_bytes(path))
            except UnreadableImageError as error:
                self.left_out[name] = str(error)
                continue
            yield name, pixels

    def require(self, least: int, argument: str) -> None:
        """Refuse the folder if fewer than ``least`` images could be read. Call it after iterating.

        Raises:
            ValueError: If there are fewer; the message has the first three reasons.
        """
        count = len(self.files) - len(self.left_out)
        if count < least:
            examples = "; ".join(f"{name!r}: {reason}" for name, reason in list(self.left_out.items())[:3])
            number = "two readable images" if least == 2 else "a readable image" if least == 1 else f"{least} images"
            msg = f"`{argument}` must hold at least {number}, got {count}. {examples}"
            raise ValueError(msg)


def choose_white_point(bit_depth: int | None, paths: Iterable[Path]) -> WhitePoint:
    """Return the white point of the bit depth that the user gave; if it is None, find it in the files.

    Raises:
        ValueError: If the bit depth is not in 8..16.
    """
    return find_white_point(paths) if bit_depth is None else WhitePoint.of_bit_depth(bit_depth)


def find_white_point(paths: Iterable[Path]) -> WhitePoint:
    """Return the white point of the files of more than 8 bits; files that cannot be read are ignored."""
    found = []
    for path in paths:
        with suppress(UnreadableImageError, OSError), allow_large_images():
            if _may_be_deep(path):
                found.append(measure_image(read_bytes(path)))
    return WhitePoint.find(found)


def is_deep_file(path: Path) -> bool:
    """Return whether the header of a file states more than 8 bits a channel; False if it cannot be read."""
    try:
        if not _may_be_deep(path):
            return False
        data = read_bytes(path)
        with allow_large_images(), open_image(data) as image:
            return is_deep(image, data)
    except (UnreadableImageError, OSError):
        return False


def _may_be_deep(path: Path) -> bool:
    """Return whether a file has more than 8 bits, as far as its first bytes tell."""
    with open_file(path) as file:
        head = file.read(HEAD_BYTES)
    if not holds_header(head):
        return True
    try:
        with open_image(head) as image:
            return is_deep(image, head)
    except UnreadableImageError:
        return True  # the header is longer than that
