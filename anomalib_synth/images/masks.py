"""Reading masks: which pixels are marked, or the reason why that cannot be decided.

- A colour image counts by its brightest channel. A palette image counts by its indices if index 0 is black, else by
  its colours.
- In a mask with two levels, with class indices, or with levels that fill areas of their own, every pixel but zero is
  marked.
- In a mask with intermediate levels, such as a JPEG or a smoothed outline, pixels from half the maximum on are marked.
- A mask that is painted into the alpha channel, looks inverted, or holds class indices and the border value 255 is
  refused with the reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from scipy.ndimage import maximum_filter, minimum_filter

from anomalib_synth.images.formats import UnreadableImageError
from anomalib_synth.images.reading import allow_large_images, open_image, read_bytes
from anomalib_synth.images.samples import as_rgb, is_deep, read_samples, turn_upright

if TYPE_CHECKING:
    from pathlib import Path

_LARGEST_INDEX = 64
_BORDER = 255
_FLAT_SHARE = 0.25  # a level fills an area, and is no slope, if at least this share of its pixels has equal neighbours
_BETWEEN = (0.1, 0.9)  # shares of the maximum; a level in between is a class if it fills an area
_INVERTED_SHARE = 0.5
_FRAME_SHARE = 0.9
_ASPECT_TOLERANCE = 0.02


def read_mask(path: Path, argument: str, *, of_defect: bool = True) -> np.ndarray:
    """Read a mask that must mark something.

    Args:
        path: The file.
        argument: Name of the argument, for the error.
        of_defect: True for the mask of a defect, which cannot fill the image; False for that of a part, which can.

    Returns:
        (H, W) bool.

    Raises:
        ValueError: If it cannot be read, marks nothing, or does not look like a mask.
    """
    inside = decode_mask(path, argument)
    reason = find_implausible(inside) if of_defect or not inside.any() else ""
    if reason:
        raise ValueError(_describe(path, argument, reason))
    return inside


def find_implausible(inside: np.ndarray) -> str:
    """Return why a mask (H, W) bool cannot be the mask of a defect, ``""`` if it can."""
    if not inside.any():
        return "it is zero everywhere; paint the marked pixels non-zero"
    if inside.all():
        return "it marks every pixel, as a photograph in place of a mask does; paint the unmarked pixels zero"
    if _looks_inverted(inside):
        return (
            f"it marks {inside.mean():.0%} of the image and its frame, so it looks inverted. Mark the defect, not what "
            "is around it"
        )
    return ""


def decode_mask(path: Path, argument: str, data: bytes | None = None) -> np.ndarray:
    """Read a mask, (H, W) bool, without judging it: it may mark nothing, or everything.

    Args:
        path: The file.
        argument: Name of the argument, for the error.
        data: Its bytes, where they have been read already.

    Raises:
        ValueError: If it cannot be read, or it cannot be decided which pixels it marks.
    """
    try:
        return _to_bool(*_read_values(read_bytes(path) if data is None else data))
    except UnreadableImageError as error:
        raise ValueError(_describe(path, argument, str(error))) from error


def check_same_aspect(mask: tuple[int, int], image: tuple[int, int], what: str) -> None:
    """Refuse a mask whose aspect ratio differs from its image's.

    A square image takes any mask: it may have been squeezed to the size that a model wants.

    Args:
        mask: Height and width of the mask, in pixels.
        image: Height and width of the image, in pixels.
        what: What the mask is called, for the error.

    Raises:
        ValueError: If they differ; the message names both sizes.
    """
    ratio = (mask[0] * image[1]) / (mask[1] * image[0])
    if image[0] != image[1] and abs(np.log(ratio)) > _ASPECT_TOLERANCE:
        crossed = (mask[1] * image[1]) / (mask[0] * image[0])
        turned = " It looks turned by a quarter." if abs(np.log(crossed)) < _ASPECT_TOLERANCE else ""
        msg = (
            f"{what} must have the shape of its image, got {mask[1]} x {mask[0]} pixels for an image of {image[1]} x "
            f"{image[0]}.{turned} Export it at the image's size."
        )
        raise ValueError(msg)


def _describe(path: Path, argument: str, reason: str) -> str:
    return f"`{argument}` needs a usable mask, {str(path)!r} is none: {reason}."


def _read_values(data: bytes) -> tuple[np.ndarray, bool]:
    """Return the values of a mask (H, W), upright, and whether its format may have changed them."""
    if not data:
        msg = "the file is empty"
        raise UnreadableImageError(msg)
    with allow_large_images(), open_image(data) as image:
        is_lossy = image.format in {"JPEG", "MPO"} or (image.format == "WEBP" and b"VP8L" not in data[:64])
        if is_deep(image, data):
            samples = read_samples(image, data)
            return samples if samples.ndim == 2 else samples.max(2), is_lossy
        if image.mode == "P" and not any((image.getpalette() or [0])[:3]):
            return turn_upright(np.asarray(image), image), is_lossy
        if "A" in image.getbands():
            _check_alpha(image)
        grey = image.mode in {"1", "L", "LA"}
        values = np.asarray(image.convert("L")) if grey else np.asarray(as_rgb(image)).max(2)
        return turn_upright(values, image), is_lossy


def _check_alpha(image: Image.Image) -> None:
    """Refuse a mask that may be painted into the alpha channel, so that its grey values say nothing."""
    alpha = np.asarray(image.getchannel("A"))
    if alpha.min() != alpha.max():
        msg = (
            "its alpha channel varies, so it may be painted there and not in grey. Save it without alpha, white where "
            "it marks and black elsewhere"
        )
        raise UnreadableImageError(msg)


def _to_bool(values: np.ndarray, is_lossy: bool) -> np.ndarray:
    """Return which pixels are marked.

    Raises:
        UnreadableImageError: If class indices and a border value are mixed, or no value stands for "not marked".
    """
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        msg = "its values are no numbers"
        raise UnreadableImageError(msg)
    levels = np.unique(values)
    if levels[0] < 0:
        msg = f"it has negative values, down to {levels[0]:g}"
        raise UnreadableImageError(msg)
    if levels.size == 1:
        return values > 0
    if is_lossy:
        return values >= levels[-1] / 2
    if levels[0] > 0:  # no pixel is zero: video range, or no mask at all
        if levels[0] >= levels[-1] / 2 or levels[-1] <= _LARGEST_INDEX:
            msg = f"it has no zero, but values from {levels[0]:g} to {levels[-1]:g}. Save what it does not mark as 0"
            raise UnreadableImageError(msg)
        return values >= levels[-1] / 2
    if levels.size == 2:
        return values > 0
    flat = _flat_levels(values)
    if values.dtype.kind != "f" and levels[-1] == _BORDER:
        _check_border([level for level in flat if 0 < level < _BORDER])
    low, high = (share * levels[-1] for share in _BETWEEN)
    is_classes = any(low < level < high for level in flat)
    if is_classes or (values.dtype.kind != "f" and levels[-1] <= _LARGEST_INDEX):
        return values > 0
    return values >= levels[-1] / 2


def _flat_levels(values: np.ndarray) -> list[float]:
    """Return the levels that fill areas of their own, rather than lie on the slope between two others."""
    alike = minimum_filter(values, 3, mode="nearest") == maximum_filter(values, 3, mode="nearest")
    levels, places = np.unique(values, return_inverse=True)
    places = places.reshape(-1)
    counts = np.bincount(places, minlength=levels.size)
    inner = np.bincount(places, weights=alike.reshape(-1), minlength=levels.size)
    return [float(level) for level, share in zip(levels, inner / counts, strict=True) if share >= _FLAT_SHARE]


def _check_border(indices: list[float]) -> None:
    """Refuse class indices mixed with the border value 255, as in VOC; ``indices`` are the areas' values below it."""
    if indices and indices[-1] <= _LARGEST_INDEX:
        listed = ", ".join(f"{index:g}" for index in indices[:4])
        msg = (
            f"it holds class indices ({listed}) and {_BORDER}, which is a border in some data sets and a defect in "
            "others. Save what it marks as white, all else as black"
        )
        raise UnreadableImageError(msg)


def _looks_inverted(inside: np.ndarray) -> bool:
    """Return whether a mask marks most of the image and nearly all of its frame."""
    frame = np.concatenate([inside[0], inside[-1], inside[:, 0], inside[:, -1]])
    return bool(inside.mean() > _INVERTED_SHARE and frame.mean() > _FRAME_SHARE)
