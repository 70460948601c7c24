"""Reading one image of any format as upright 8-bit RGB, or the reason why it cannot be read.

How special cases are read:

- Images of more than 8 bits a channel: with the white point of the folder (:mod:`anomalib_synth.images.white_point`).
- Palette, CMYK, YCbCr, black-and-white and grey images are converted to RGB as anomalib's own reader does.
- Alpha is dropped, as anomalib's reader does, so that a sample looks like the images the model trains on.
- EXIF orientation is applied. Of several frames or pages, the first one is read.
- Images of up to ``MAX_PIXELS`` are read. They are decoded whole, except that a JPEG of more than
  ``MAX_NATIVE_PIXELS`` that is to be resized is decoded at a reduced scale.
- Only the formats of :data:`~anomalib_synth.images.formats.FORMATS` are decoded, whatever the file's name.
"""

from __future__ import annotations

import os
import warnings
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torchvision.transforms.v2.functional import to_dtype

from anomalib_synth.images.files import open_file
from anomalib_synth.images.formats import (
    FORMATS,
    HEAD_BYTES,
    MAX_FILE_BYTES,
    MAX_NATIVE_PIXELS,
    MAX_PIXELS,
    UnreadableImageError,
)
from anomalib_synth.images.samples import (
    as_rgb,
    is_deep,
    orientation,
    read_samples,
    stands_opened,
    stated_white,
    tells_orientation,
    turn_upright,
)
from anomalib_synth.images.white_point import Brightness, WhitePoint, measure_brightness

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anomalib_synth.images.sizes import ImageSize

_PNG = b"\x89PNG"
_TIFF = (b"II", b"MM")
_LAST_UNSWAPPED = 4  # EXIF orientations above it swap height and width


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a file.

    Raises:
        UnreadableImageError: If it is empty, too large or cannot be read.
    """
    try:
        with open_file(path) as file:
            data = file.read(MAX_FILE_BYTES + 1)
            if len(data) > MAX_FILE_BYTES:
                size = os.fstat(file.fileno()).st_size
                msg = f"the file has {size / 2**30:.1f} GiB, more than {MAX_FILE_BYTES / 2**30:g}"
                raise UnreadableImageError(msg)
    except OSError as error:
        msg = f"cannot be read ({error.strerror or error})"
        raise UnreadableImageError(msg) from error
    if not data:
        msg = "the file is empty"
        raise UnreadableImageError(msg)
    return data


def decode_image(
    data: bytes, *, image_size: ImageSize | None = None, white_point: WhitePoint | None = None
) -> np.ndarray:
    """Decode the bytes of an image file.

    Args:
        data: The bytes.
        image_size: Size to resize to; None keeps the image's own size.
        white_point: White point of files of more than 8 bits; None takes it from this image alone.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        UnreadableImageError: If the bytes are not an image or are truncated, the image is too large, or its white point
            is not known.
    """
    with open_image(data) as image:
        if is_deep(image, data):
            samples, brightness = _measure(image, data)
            levels = (white_point or WhitePoint.find([brightness])).to_levels(samples)
        else:
            levels = _read_levels(image, image_size)
    if image_size is not None:
        height, width = image_size.of(*levels.shape[:2])
        if (height, width) != levels.shape[:2]:
            levels = np.array(Image.fromarray(levels).resize((width, height), Image.Resampling.BILINEAR))
    if levels.ndim == 2:
        levels = np.repeat(levels[..., None], 3, axis=2)
    return np.ascontiguousarray(levels)


def measure_image(data: bytes) -> Brightness | None:
    """Return how bright an image of more than 8 bits is; None for an 8-bit image, which is not decoded.

    Raises:
        UnreadableImageError: As :func:`decode_image`.
    """
    with open_image(data) as image:
        if not is_deep(image, data):
            return None
        return _measure(image, data)[1]


def holds_header(head: bytes) -> bool:
    """Return whether the first bytes of a file hold its header; the tags of a TIFF may lie at its end."""
    return head[:2] not in _TIFF or len(head) < HEAD_BYTES


def read_size(path: Path, argument: str) -> tuple[int, int, bool]:
    """Return the height and width of an upright image, in pixels, and whether its EXIF orientation turns or mirrors it.

    Args:
        path: The image file.
        argument: Name of the argument that holds it, for the error.

    Raises:
        ValueError: If it cannot be read.
    """
    try:
        with open_file(path) as file:
            head = file.read(HEAD_BYTES)
            may_turn = not head.startswith(_PNG) or tells_orientation(file)
        if not holds_header(head):
            head = read_bytes(path)
        try:
            return _measure_size(head, may_turn=may_turn)
        except UnreadableImageError:  # a long header, or an orientation behind the pixels
            return _measure_size(read_bytes(path), may_turn=may_turn)
    except UnreadableImageError as error:
        raise ValueError(_describe_unreadable(path, argument, error)) from error
    except OSError as error:
        reason = f"cannot be read ({error.strerror or error})"
        raise ValueError(_describe_unreadable(path, argument, reason)) from error


def read_tensor(path: Path, argument: str, *, white_point: WhitePoint | None = None) -> torch.Tensor:
    """Return the image of a file, (3, H, W) float32 in [0, 1].

    Args:
        path: The image file.
        argument: Name of the argument that holds it, for the error.
        white_point: White point of a file of more than 8 bits; None reads it as anomalib does, which was checked to be
            right for all images of a run before (:func:`~anomalib_synth.images.agreement.check_host_agrees`).

    Raises:
        ValueError: If it cannot be read.
    """
    try:
        with allow_large_images():
            data = read_bytes(path)
            return to_tensor(decode_image(data, white_point=white_point or _white_of_host(data)))
    except UnreadableImageError as error:
        raise ValueError(_describe_unreadable(path, argument, error)) from error


def to_tensor(levels: np.ndarray) -> torch.Tensor:
    """Return uint8 levels (H, W, 3) or (B, H, W, 3) as float32 in [0, 1], channels first, as anomalib's reader does."""
    channels_first = torch.from_numpy(np.require(levels, requirements=["C", "W"])).movedim(-1, -3).contiguous()
    return to_dtype(channels_first, torch.float32, scale=True)


@contextmanager
def open_image(data: bytes) -> Iterator[Image.Image]:
    """Open the bytes of an image file that has a known format and at most ``MAX_PIXELS`` pixels.

    Raises:
        UnreadableImageError: If it cannot be opened. Whatever a decoder raises within the block becomes this error too.
    """
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            yield image
    except UnreadableImageError:
        raise
    except UnidentifiedImageError as error:
        msg = "not an image of a known format"
        raise UnreadableImageError(msg) from error
    except Image.DecompressionBombError as error:
        msg = f"the image has more than {MAX_PIXELS / 1e6:.0f} megapixels"
        raise UnreadableImageError(msg) from error
    except Exception as error:  # a damaged file can make a decoder raise anything
        msg = f"damaged or unsupported ({type(error).__name__}: {error})"
        raise UnreadableImageError(msg) from error


@contextmanager
def allow_large_images() -> Iterator[None]:
    """Silence Pillow's warning about large images, as this package has limits of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _describe_unreadable(path: Path, argument: str, reason: Exception | str) -> str:
    return f"`{argument}` holds an unreadable image, {str(path)!r}: {reason}. Replace it, or take it away."


def _measure_size(data: bytes, *, may_turn: bool) -> tuple[int, int, bool]:
    with allow_large_images(), open_image(data) as image:
        width, height = image.size
        turn = orientation(image) if may_turn else 1
        lies = turn > _LAST_UNSWAPPED and not stands_opened(image)
        return (width, height, True) if lies else (height, width, turn != 1)


def _white_of_host(data: bytes) -> WhitePoint:
    """Return the white by which anomalib's reader shows a file, whatever else is in its folder."""
    with open_image(data) as image:
        return WhitePoint.of_host(is_grey=image.mode[0] in {"I", "F"}) if is_deep(image, data) else WhitePoint()


def _measure(image: Image.Image, data: bytes) -> tuple[np.ndarray, Brightness]:
    """Return the samples of an image of more than 8 bits, and how bright they are."""
    stated = stated_white(image)  # before the samples are decoded: Pillow forgets how it scaled them
    samples = read_samples(image, data)
    return samples, measure_brightness(samples, stated)


def _read_levels(image: Image.Image, image_size: ImageSize | None) -> np.ndarray:
    """Return the 8-bit image, upright and resized: (H, W, 3) uint8."""
    if image_size is not None and image.format == "JPEG" and image.width * image.height > MAX_NATIVE_PIXELS:
        height, width = image_size.of(image.height, image.width)
        longer = max(height, width)  # the image may still lie on its side
        image.draft(None, (longer, longer))
    rgb = as_rgb(image)
    if image_size is not None:  # before it becomes an array, so that a large one is not in memory twice
        lies = orientation(image) > _LAST_UNSWAPPED
        height, width = image_size.of(*((rgb.width, rgb.height) if lies else (rgb.height, rgb.width)))
        size = (height, width) if lies else (width, height)
        rgb = rgb if rgb.size == size else rgb.resize(size, Image.Resampling.BILINEAR)
    return turn_upright(np.asarray(rgb), image)
