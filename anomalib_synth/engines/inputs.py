"""Reading one normal image, whatever its format: RGB, 8 bits, upright; or a reason why not.

How the odd ones are read:

- 16-bit grey and colour: the high byte, so that white stays white (a plain conversion clips grey to white).
- Palette, CMYK, YCbCr, black-and-white, grey: converted to RGB as anomalib's own reader does.
- Alpha is dropped, as anomalib's reader does, so that a sample looks like the images the model trains on.
- EXIF orientation is applied. Of several frames or pages the first is read.
- Floating point: taken as it is in [0, 1], refused otherwise; so are 32-bit integers, whose white nobody knows.
- Up to ``MAX_PIXELS`` an image is decoded whole, 4 bytes a pixel; a JPEG that is resized anyway is decoded at a reduced
  scale. What is larger is refused, and so is what is kept at its native size beyond ``MAX_NATIVE_PIXELS``: drawing
  holds several float copies of an image.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from anomalib_synth.store import hash_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anomalib_synth.engines.plan import Normal

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
MAX_PIXELS = 2**27
MAX_NATIVE_PIXELS = 2**25
MAX_FILE_BYTES = 2**30
MIN_SIDE = 16


class UnreadableInputError(ValueError):
    """An input that cannot be used; the message is the reason it is quarantined with."""


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a file.

    Raises:
        UnreadableInputError: If it is empty, too large or cannot be read.
    """
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            msg = f"the file has {size / 2**30:.1f} GiB, more than {MAX_FILE_BYTES / 2**30:g}"
            raise UnreadableInputError(msg)
        data = path.read_bytes()
    except OSError as error:
        msg = f"cannot be read ({error.strerror or error})"
        raise UnreadableInputError(msg) from error
    if not data:
        msg = "the file is empty"
        raise UnreadableInputError(msg)
    return data


def decode_image(data: bytes, *, image_size: int | None = None) -> np.ndarray:
    """Decode the bytes of an image file.

    Args:
        data: The bytes.
        image_size: Side in pixels to resize to, None keeps the native size.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        UnreadableInputError: If the bytes are no image, are truncated, or the image is too large or too small.
    """
    try:
        with Image.open(BytesIO(data)) as image:
            _check_size(image, image_size)
            if image_size is not None and image.format == "JPEG" and image.width * image.height > MAX_NATIVE_PIXELS:
                image.draft(None, (image_size, image_size))
            upright = ImageOps.exif_transpose(image)
            rgb = _to_rgb(upright, image.format)
        if image_size is not None:
            rgb = rgb.resize((image_size, image_size), Image.Resampling.BILINEAR)
        return np.array(rgb)
    except UnreadableInputError:
        raise
    except UnidentifiedImageError as error:
        msg = "not an image of a known format"
        raise UnreadableInputError(msg) from error
    except Image.DecompressionBombError as error:
        msg = f"the image has more than {MAX_PIXELS / 1e6:.0f} megapixels"
        raise UnreadableInputError(msg) from error
    except Exception as error:  # a damaged file can make a decoder raise anything
        msg = f"damaged or unsupported ({type(error).__name__}: {error})"
        raise UnreadableInputError(msg) from error


def read_unchanged(normal: Normal, *, image_size: int | None) -> np.ndarray:
    """Return the image of a normal that was read before: (H, W, 3) uint8, RGB.

    Raises:
        ValueError: If the file is not what it was.
    """
    try:
        data = read_bytes(normal.path)
        if hash_bytes(data) == normal.content:
            return decode_image(data, image_size=image_size)
        reason = "other content"
    except UnreadableInputError as error:
        reason = str(error)
    msg = (
        f"`normals` must not change while samples are drawn, but {str(normal.path)!r} did ({reason}). "
        "Put the file back and run the command again, or start a new store."
    )
    raise ValueError(msg)


@contextmanager
def allow_large_images() -> Iterator[None]:
    """Silence Pillow's warning about images that are large; the limits here are ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _check_size(image: Image.Image, image_size: int | None) -> None:
    width, height = image.size
    pixels = width * height
    if pixels > MAX_PIXELS:
        msg = f"the image has {pixels / 1e6:.0f} megapixels ({width} x {height}), more than {MAX_PIXELS / 1e6:.0f}"
        raise UnreadableInputError(msg)
    if image_size is None and pixels > MAX_NATIVE_PIXELS:
        msg = (
            f"the image has {pixels / 1e6:.0f} megapixels ({width} x {height}), more than "
            f"{MAX_NATIVE_PIXELS / 1e6:.0f} at native size; set image_size"
        )
        raise UnreadableInputError(msg)
    if image_size is None and min(width, height) < MIN_SIDE:
        msg = f"the image is {width} x {height}, smaller than {MIN_SIDE} pixels a side"
        raise UnreadableInputError(msg)


def _to_rgb(image: Image.Image, file_format: str | None) -> Image.Image:
    """Convert to 8-bit RGB."""
    if image.mode.startswith("I;16") or (image.mode == "I" and file_format in {"PNG", "PPM"}):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode.startswith("I"):
        msg = "32-bit integers have no known white; convert the image to 8 or 16 bits"
        raise UnreadableInputError(msg)
    if image.mode == "F":
        values = np.asarray(image)
        if not (values.min() >= 0 and values.max() <= 1):  # NaN compares false
            msg = "floating-point values outside [0, 1]; convert the image to 8 or 16 bits"
            raise UnreadableInputError(msg)
        return Image.fromarray((values * 255).round().astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB warns
    return image.convert("RGB")
