"""Images that anomalib's own reader would show a model differently than they are read here.

It clips what has more than 8 bits to white, leaves photographs lying on their side, and hands any file to any decoder.
A model must be trained and used on one reading, so such files are refused before any work starts.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from anomalib_synth.images.formats import HEAD_BYTES, MIN_SIDE, UnreadableImageError
from anomalib_synth.images.masks import decode_mask
from anomalib_synth.images.reading import allow_large_images, open_image, read_bytes
from anomalib_synth.images.samples import is_deep, orientation, tells_orientation
from anomalib_synth.progress import track

if TYPE_CHECKING:
    from collections.abc import Iterable

_PNG = b"\x89PNG"
_QUIET = 2000
_DEEP = "more than 8 bits a channel, which anomalib clips to white"
_TURNED = "an EXIF orientation, which anomalib ignores"


def check_host_agrees(paths: Iterable[str | Path], argument: str) -> None:
    """Refuse images that anomalib would read differently; little more than their headers is read.

    Args:
        paths: The image files.
        argument: What names them, for the error.

    Raises:
        ValueError: With the number of images, examples, and the command that converts them.
    """
    listed = sorted({str(path) for path in paths})
    found: dict[str, list[str]] = {}
    with allow_large_images():
        for path in track(listed, "Checking images", disable=len(listed) < _QUIET):
            if reason := find_difference(Path(path)):
                found.setdefault(reason, []).append(path)
    if found:
        counted = "; ".join(f"{len(files)} such as {files[0]!r}: {reason}" for reason, files in found.items())
        msg = (
            f"`{argument}` must hold images that anomalib reads as they are, {sum(map(len, found.values()))} of "
            f"{len(listed)} are not ({counted}). Take them away, or write converted copies and use those: "
            "`anomalib-synth convert --images FOLDER --out COPIES`."
        )
        raise ValueError(msg)


def find_difference(path: Path) -> str:
    """Return why anomalib would read a file differently, ``""`` if it would not."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            may_turn = not head.startswith(_PNG) or tells_orientation(file)
        try:
            if not head.startswith(_PNG) or not may_turn:
                return _compare(head, may_turn=may_turn)
        except UnreadableImageError:
            pass  # a long header, as with thumbnails and colour profiles
        return _compare(read_bytes(path), may_turn=may_turn)
    except UnreadableImageError as error:
        return f"cannot be read ({error})"
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"


def check_host_masks(paths: Iterable[str | Path], argument: str) -> None:
    """Refuse masks of defects that anomalib would read differently: it marks whatever is not zero.

    Raises:
        ValueError: Naming the first one, and how many pixels differ.
    """
    from anomalib.data.utils import read_mask as read_host_mask

    listed = sorted({str(path) for path in paths})
    for path in track(listed, "Checking masks", disable=len(listed) < _QUIET // 10):
        ours = decode_mask(Path(path), argument)
        theirs = np.asarray(read_host_mask(path)) > 0
        if theirs.shape != ours.shape or (theirs != ours).any():
            counts = f"{int(theirs.sum())} pixels for {int(ours.sum())}"
            msg = (
                f"`{argument}` must hold masks that anomalib reads as they are, but it marks whatever is not zero: "
                f"{counts} in {path!r}, whose outline has several levels or whose palette is not black first. Write "
                "copies of two levels: `anomalib-synth convert --masks FOLDER --out COPIES`."
            )
            raise ValueError(msg)


def _compare(data: bytes, *, may_turn: bool) -> str:
    with open_image(data) as image:
        if is_deep(image, data):
            return _DEEP
        if min(image.size) < MIN_SIDE:
            return f"smaller than {MIN_SIDE} pixels a side"
        if image.format == "PNG" and may_turn:
            image.load()  # what tells may lie behind the pixels
        return _TURNED if may_turn and image.format != "TIFF" and orientation(image) != 1 else ""
