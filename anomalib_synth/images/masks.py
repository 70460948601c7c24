"""Reading masks: which pixels are marked; or a reason why that cannot be told.

- A mask of two levels, or of a few small class indices, marks what is not zero.
- One of many levels, as a JPEG or a smoothed outline has, marks what is at least half of its maximum.
- Painted into the alpha channel, inverted, or with the border value 255 of class indices: refused by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from anomalib_synth.images.formats import UnreadableImageError
from anomalib_synth.images.reading import allow_large_images, open_image, read_bytes
from anomalib_synth.images.samples import is_deep, read_samples, turn_upright

if TYPE_CHECKING:
    from pathlib import Path

_FEW = 4  # levels; smoothing an outline makes more
_LARGEST_INDEX = 64
_BORDER = 255
_INVERTED_SHARE = 0.5
_FRAME_SHARE = 0.9
_ASPECT_TOLERANCE = 0.02


def read_mask(path: Path, argument: str, *, of_defect: bool = True) -> np.ndarray:
    """Read a mask.

    Args:
        path: The file.
        argument: Name of the argument, for the error.
        of_defect: Whether it marks a defect, which does not fill the image, or a part, which may.

    Returns:
        (H, W) bool.

    Raises:
        ValueError: If it cannot be read, marks nothing, or does not look like a mask.
    """
    try:
        inside = _to_bool(_read_values(path))
        if of_defect:
            _check_extent(inside)
    except UnreadableImageError as error:
        msg = f"`{argument}` needs a usable mask, {str(path)!r} is none: {error}."
        raise ValueError(msg) from error
    return inside


def check_same_aspect(mask: tuple[int, int], image: tuple[int, int], what: str) -> None:
    """Refuse a mask whose sides have another ratio than the image's, both given as (height, width).

    Raises:
        ValueError: Naming both sizes.
    """
    ratio = (mask[0] * image[1]) / (mask[1] * image[0])
    if abs(np.log(ratio)) > _ASPECT_TOLERANCE:
        turned = (
            " It looks turned by a quarter." if abs(np.log(mask[1] * image[1] / (mask[0] * image[0]))) < 0.02 else ""
        )
        msg = (
            f"{what} must have the shape of its image, got {mask[1]} x {mask[0]} pixels for an image of {image[1]} x "
            f"{image[0]}.{turned} Export it at the image's size."
        )
        raise ValueError(msg)


def _read_values(path: Path) -> np.ndarray:
    """Return the values of a mask, (H, W), upright: palette indices, grey levels, or what they are in RGB."""
    data = read_bytes(path)
    with allow_large_images(), open_image(data) as image:
        if is_deep(image, data):
            samples = read_samples(image, data)
            return samples if samples.ndim == 2 else samples.max(2)
        if image.mode == "P":
            return turn_upright(np.asarray(image), image)
        if "A" in image.getbands():
            _check_alpha(image)
        return turn_upright(np.asarray(image.convert("L")), image)


def _check_alpha(image: Image.Image) -> None:
    """Refuse a mask that is painted into the alpha channel, where grey says nothing of it."""
    alpha = np.asarray(image.getchannel("A"))
    if alpha.min() != alpha.max():
        msg = (
            "its alpha channel varies, so it may be painted there and not in grey. Save it without alpha, white where "
            "it marks and black elsewhere"
        )
        raise UnreadableImageError(msg)


def _to_bool(values: np.ndarray) -> np.ndarray:
    """Return where a mask marks.

    Raises:
        UnreadableImageError: If it marks nothing or everything, or mixes class indices and a border.
    """
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        msg = "its values are no numbers"
        raise UnreadableImageError(msg)
    levels = np.unique(values)
    if levels[-1] <= 0:
        msg = "it is zero everywhere; paint what it marks non-zero"
        raise UnreadableImageError(msg)
    if levels.size == 1:
        msg = f"it is {levels[0]:g} everywhere; paint what it does not mark zero"
        raise UnreadableImageError(msg)
    if values.dtype.kind != "f" and levels[-1] == _BORDER:
        _check_border(levels[levels > 0][:-1])
    if levels.size <= _FEW or (values.dtype.kind != "f" and levels[-1] <= _LARGEST_INDEX):
        return values > 0
    return values >= levels[-1] / 2


def _check_border(indices: np.ndarray) -> None:
    """Refuse class indices beside the value of a border, as VOC has them; ``indices`` are the levels between."""
    if indices.size and indices[-1] <= _LARGEST_INDEX and (indices.size <= _FEW or indices[-1] == indices.size):
        msg = (
            f"it holds class indices ({', '.join(map(str, indices[:_FEW]))}) and {_BORDER}, which is a border in some "
            "data sets and a defect in others. Save what it marks as white, all else as black"
        )
        raise UnreadableImageError(msg)


def _check_extent(inside: np.ndarray) -> None:
    """Refuse a mask that marks most of the image and nearly all of its frame: an inverted one.

    Raises:
        UnreadableImageError: Saying so.
    """
    frame = np.concatenate([inside[0], inside[-1], inside[:, 0], inside[:, -1]])
    if inside.mean() > _INVERTED_SHARE and frame.mean() > _FRAME_SHARE:
        msg = (
            f"it marks {inside.mean():.0%} of the image and its frame, so it looks inverted. Mark the defect, not what "
            "is around it"
        )
        raise UnreadableImageError(msg)
