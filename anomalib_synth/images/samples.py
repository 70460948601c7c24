"""The samples of an image as the file has them: more than 8 bits, white where the file states it, and orientation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from anomalib_synth.images.formats import UnreadableImageError

if TYPE_CHECKING:
    from PIL import Image

_ORIENTATION = 0x0112  # EXIF
_BITS_PER_SAMPLE, _MAX_SAMPLE = 258, 281  # TIFF
_PNG_DEPTH, _PNG_CHUNKS = 24, 33  # place of the bit depth, and of the chunk after the header
_TURNS = {  # orientation: quarter turns to the left, then mirrored from left to right
    2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False), 7: (1, True), 8: (1, False),
}  # fmt: skip


def is_deep(image: Image.Image, data: bytes) -> bool:
    """Say whether an image has more than 8 bits a channel; also one that Pillow would cut down to 8 on decoding."""
    if image.mode[0] in {"I", "F"}:
        return True
    if image.format == "PNG":
        return data[_PNG_DEPTH] == 16
    return image.format == "TIFF" and max(_bits_per_sample(image)) > 8


def read_samples(image: Image.Image, data: bytes) -> np.ndarray:
    """Return the samples of an image of more than 8 bits, upright: (H, W) or (H, W, 3), integers or float.

    Raises:
        UnreadableImageError: If they are in a form that is not read.
    """
    if image.mode[0] in {"I", "F"}:
        return turn_upright(np.asarray(image), image)
    import cv2

    image.load()  # Pillow's errors about damage are better, and OpenCV reads half an image without one
    samples = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if samples is None or samples.dtype.kind not in "uf":
        msg = f"{image.format} with more than 8 bits a channel in a form that is not read; convert it to 16-bit PNG"
        raise UnreadableImageError(msg)
    if samples.ndim == 3:
        samples = samples[..., 0] if samples.shape[2] == 2 else samples[..., 2::-1]
    return turn_upright(samples, image)


def stated_white(image: Image.Image, data: bytes) -> float | None:
    """Return white as the file states it: significant bits of a PNG, largest sample of a TIFF; None if it does not."""
    if image.format == "PPM":
        return 2.0**16 - 1  # the decoder has scaled it
    if image.format == "TIFF":
        values = image.tag_v2.get(_MAX_SAMPLE) or ()  # type: ignore[attr-defined]
        largest = max(values if isinstance(values, tuple) else (values,), default=0)
        bits = max(_bits_per_sample(image))
        if 255 <= largest < 2**16:
            return float(largest)
        return 2.0**bits - 1 if 8 < bits < 16 else None
    if image.format == "PNG":
        bits = _significant_bits(data)
        return 2.0**bits - 1 if 8 <= bits <= 16 else None
    return None


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8, without decoding the image; 1 where there is none."""
    told = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif", "Raw profile type APP1")
    if image.format == "PNG" and not any(name in image.info for name in told):
        return 1  # Pillow would decode it to look behind the pixels
    found = image.getexif().get(_ORIENTATION, 1)
    return found if found in _TURNS else 1


def turn_upright(pixels: np.ndarray, image: Image.Image) -> np.ndarray:
    """Return pixels (H, W, ...) turned as the EXIF orientation of their image says."""
    turns, mirrored = _TURNS.get(image.getexif().get(_ORIENTATION, 1), (0, False))
    pixels = np.rot90(pixels, turns)
    return pixels[:, ::-1] if mirrored else pixels


def _bits_per_sample(image: Image.Image) -> tuple[int, ...]:
    bits = image.tag_v2.get(_BITS_PER_SAMPLE, (1,))  # type: ignore[attr-defined]
    return bits if isinstance(bits, tuple) else (bits,)


def _significant_bits(png: bytes) -> int:
    """Return the largest entry of a PNG's sBIT chunk, 0 if there is none before the pixels."""
    place = _PNG_CHUNKS
    while place + 8 <= len(png):
        length, kind = int.from_bytes(png[place : place + 4], "big"), png[place + 4 : place + 8]
        if kind == b"sBIT":
            return max(png[place + 8 : place + 8 + min(length, 3)], default=0)
        if kind == b"IDAT":
            return 0
        place += length + 12
    return 0
