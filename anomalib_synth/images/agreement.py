"""Finds images and masks that anomalib's own reader reads differently from this package.

anomalib clips images of more than 8 bits to white, ignores EXIF orientation, and lets any decoder open any file. A
model must be trained and used on the same pixels, so such files are refused before any work starts.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from anomalib_synth.images.folder import find_white_point
from anomalib_synth.images.formats import MIN_SIDE, UnreadableImageError
from anomalib_synth.images.masks import decode_mask
from anomalib_synth.images.reading import allow_large_images, decode_image, open_image, read_bytes
from anomalib_synth.images.samples import is_deep, orientation
from anomalib_synth.images.white_point import WhitePoint
from anomalib_synth.progress import track

if TYPE_CHECKING:
    from collections.abc import Iterable

_QUIET = 256
_THREADS = 4
_DEEP = "more than 8 bits a channel, which anomalib clips to white"
_TURNED = "an EXIF orientation, which anomalib ignores"


def check_host_agrees(
    paths: Iterable[str | Path],
    argument: str,
    *,
    shown: WhitePoint = WhitePoint(),  # noqa: B008  (never changed)
) -> None:
    """Refuse images that anomalib would read differently, or fail on in the middle of training.

    Every image is decoded, once per process. An image of more than 8 bits passes if anomalib reads the same pixels as
    this package does with the white point of all of them: 16-bit colour images that use the full range do.

    Args:
        paths: The image files.
        argument: Name of the argument that holds them, for the error.
        shown: White point by which a model was shown such images before, for the error; empty if it was not.

    Raises:
        ValueError: If there are such images. The message has their number, examples, and the command that converts
            them.
    """
    listed = sorted({str(path) for path in paths})
    found: dict[str, list[str]] = {}
    white = WhitePoint()
    with allow_large_images():
        with ThreadPoolExecutor(_THREADS) as pool:
            reasons = pool.map(find_difference, map(Path, listed))
            looked_at = track(reasons, "Checking images", total=len(listed), disable=len(listed) < _QUIET)
            for path, reason in zip(listed, looked_at, strict=True):
                if reason:
                    found.setdefault(reason, []).append(path)
        if deep := found.pop(_DEEP, []):
            white = find_white_point(map(Path, deep))
            if deep := [path for path in deep if _differs_in_depth(path, white)]:
                found[_DEEP] = deep
    if found:
        counted = "; ".join(f"{len(files)} such as {files[0]!r}: {reason}" for reason, files in found.items())
        msg = (
            f"`{argument}` must hold images that anomalib reads as they are, but {sum(map(len, found.values()))} of "
            f"{len(listed)} are not such images ({counted}). Take them away, or write converted copies and use those: "
            "`anomalib-synth convert --images FOLDER --out COPIES`."
        )
        raise ValueError(msg + (_tell_depth(white, shown) if _DEEP in found else ""))


def _tell_depth(white: WhitePoint, shown: WhitePoint) -> str:
    """Say which depth images of more than 8 bits have, and how a model can be trained on them, or shown them."""
    if str(shown):
        depth = f": add `--bit_depth {shown.bit_depth}`" if shown.bit_depth else ""
        return f" The model was shown such images by the white {shown}, so convert these by that one{depth}."
    known = f"White of those is {white}" if str(white) else "White of those is not known, so you have to say it"
    value = white.value or "4095"
    value = f"{value:g}" if isinstance(value, float) else value
    return (
        f" {known}. `white_point: {value}` of anomalib_synth.data.SyntheticDataModule, with your datamodule as its "
        "`base`, makes such copies itself."
    )


def find_difference(path: Path) -> str:
    """Return why anomalib would read a file differently, ``""`` if it would not."""
    try:
        state = path.stat()
        return _find_difference(path, (state.st_size, state.st_mtime_ns, state.st_ino))
    except UnreadableImageError as error:
        return f"cannot be read ({error})"
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"


def check_host_masks(paths: Iterable[str | Path], argument: str) -> None:
    """Refuse masks of defects that anomalib would read differently, as it marks every pixel that is not zero.

    Args:
        paths: The mask files.
        argument: Name of the argument that holds them, for the error.

    Raises:
        ValueError: If there is such a mask. The message names the first one and both numbers of marked pixels.
    """
    from anomalib.data.utils import read_mask as read_host_mask

    listed = sorted({str(path) for path in paths})
    for path in track(listed, "Checking masks", disable=len(listed) < _QUIET):
        ours = decode_mask(Path(path), argument)
        theirs = np.asarray(read_host_mask(path)) > 0
        if theirs.shape != ours.shape or (theirs != ours).any():
            counts = f"{int(theirs.sum())} pixels instead of {int(ours.sum())}"
            msg = (
                f"`{argument}` must hold masks that anomalib reads as they are, but it marks every pixel that is not "
                f"zero: {counts} in {path!r}. Its outline has grey levels, or its palette does not start with black. "
                "Write copies with two levels: `anomalib-synth convert --masks FOLDER --out COPIES`."
            )
            raise ValueError(msg)


@lru_cache(maxsize=2**17)
def _find_difference(path: Path, state: tuple[int, ...]) -> str:
    """Return the difference for one state of a file; cached, as callbacks and datamodules ask for the same files."""
    del state
    data = read_bytes(path)
    with open_image(data) as image:
        if is_deep(image, data):
            return _DEEP
        if min(image.size) < MIN_SIDE:
            return f"smaller than {MIN_SIDE} pixels a side"
        if image.format == "JPEG":
            image.draft("RGB", (1, 1))  # decodes a small picture, but still reads the whole file
        image.load()  # only this notices a truncated file, or a PNG's orientation that stands behind its pixels
        return _TURNED if image.format != "TIFF" and orientation(image) != 1 else ""


def _differs_in_depth(path: str, white: WhitePoint) -> bool:
    """Return whether anomalib reads other pixels from a file of more than 8 bits than this white point gives."""
    try:
        data = read_bytes(Path(path))
        with open_image(data) as image:
            theirs = np.asarray(image.convert("RGB"))
        return not np.array_equal(theirs, decode_image(data, white_point=white))
    except UnreadableImageError:
        return True
