"""What an image file itself holds: samples of more than 8 bits, the white point it states, and its orientation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from anomalib_synth.images.formats import UnreadableImageError

if TYPE_CHECKING:
    from PIL import Image

_ORIENTATION = 0x0112  # EXIF
_PHOTOMETRIC, _BITS_PER_SAMPLE, _MAX_SAMPLE, _PLANAR = 262, 258, 281, 284  # TIFF
_GREY_AND_RGB = (1, 2)
_PNG_DEPTH, _PNG_CHUNKS = 24, 8  # place of the bit depth, and of the first chunk
_TURNS = {  # orientation: quarter turns to the left, then mirrored from left to right
    2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False), 7: (1, True), 8: (1, False),
}  # fmt: skip


def is_deep(image: Image.Image, data: bytes) -> bool:
    """Say whether an image has more than 8 bits a channel; also one that Pillow would cut down to 8 on decoding."""
    if image.mode[0] in {"I", "F"}:
        return True
    if image.format == "PNG":
        return data[_PNG_DEPTH] == 16
    return image.format == "TIFF" and max(_tag(image, _BITS_PER_SAMPLE, 1)) > 8


def read_samples(image: Image.Image, data: bytes) -> np.ndarray:
    """Return the samples of an image of more than 8 bits, upright: (H, W) or (H, W, 3), integers or float.

    Raises:
        UnreadableImageError: If the file stores them in a form that is not read.
    """
    if image.format == "TIFF" and _tag(image, _PHOTOMETRIC, 1)[0] == 0:
        msg = "TIFF of more than 8 bits in which zero is white; convert it to 16-bit PNG"
        raise UnreadableImageError(msg)
    if image.mode[0] in {"I", "F"}:
        scaled_from = _largest_of_ppm(image)
        upright = turn_upright(np.asarray(image), image)
        return (upright.astype(np.int64) * scaled_from + 2**15 - 1) // (2**16 - 1) if scaled_from else upright
    import cv2

    if image.format == "TIFF" and _tag(image, _PHOTOMETRIC, 1)[0] not in _GREY_AND_RGB:
        msg = "TIFF of more than 8 bits whose colours are not RGB; convert it to 16-bit PNG"
        raise UnreadableImageError(msg)
    if image.format == "TIFF" and _tag(image, _PLANAR, 1)[0] != 1:
        msg = "TIFF of more than 8 bits whose colours lie in planes; convert it to 16-bit PNG"
        raise UnreadableImageError(msg)
    turn = image.getexif().get(_ORIENTATION, 1) if image.format == "TIFF" else None  # Pillow forgets it on loading
    image.load()  # Pillow's errors about damage are better, and OpenCV reads half an image without one
    samples: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if samples is None or samples.dtype.kind not in "uf":
        msg = f"{image.format} with more than 8 bits a channel in a form that is not read; convert it to 16-bit PNG"
        raise UnreadableImageError(msg)
    if samples.ndim == 3:
        samples = samples[..., 0] if samples.shape[2] == 2 else samples[..., 2::-1]
    return turn_upright(samples, image) if turn is None else _turn(samples, turn)


def stated_white(image: Image.Image) -> float | None:
    """Return the white that a file states: largest sample or bits of a TIFF, maximum of a PGM; None without one."""
    if image.format == "PPM":
        return None if image.mode == "F" else float(_largest_of_ppm(image) or 2**16 - 1)
    if image.format == "TIFF":
        largest, bits = max(_tag(image, _MAX_SAMPLE, 0)), max(_tag(image, _BITS_PER_SAMPLE, 1))
        if 255 <= largest < 2**16:
            return float(largest)
        return 2.0**bits - 1 if 8 < bits < 16 else None
    return None


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8, of an opened image; 1 where there is none."""
    found = image.getexif().get(_ORIENTATION, 1)
    return found if found in _TURNS else 1


def tells_orientation(png: BinaryIO) -> bool:
    """Say whether a PNG file has a chunk that may hold an orientation, before its pixels or behind them."""
    png.seek(_PNG_CHUNKS)
    while len(head := png.read(8)) == 8:
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if kind == b"eXIf":
            return True
        if kind in {b"tEXt", b"zTXt", b"iTXt"} and length < 2**24:
            text = png.read(length)
            if text.startswith((b"Raw profile type", b"XML:com.adobe.xmp")):  # packed, perhaps
                return True
            length = 0
        png.seek(length + 4, 1)
    return False


def stands_opened(image: Image.Image) -> bool:
    """Say whether Pillow gives the size of an opened image as it will stand, whatever its orientation says."""
    return image.format == "TIFF" and _tag(image, _ORIENTATION, 1)[0] != 1


def as_rgb(image: Image.Image) -> Image.Image:
    """Return an 8-bit image as RGB, alpha dropped."""
    # straight from a palette with transparency, Pillow warns
    return (image.convert("RGBA") if image.mode == "P" and "transparency" in image.info else image).convert("RGB")


def turn_upright(pixels: np.ndarray, image: Image.Image) -> np.ndarray:
    """Return pixels (H, W, ...) of a loaded image turned as its EXIF orientation says."""
    return _turn(pixels, image.getexif().get(_ORIENTATION, 1))


def _turn(pixels: np.ndarray, orientation_tag: int) -> np.ndarray:
    turns, mirrored = _TURNS.get(orientation_tag, (0, False))
    pixels = np.rot90(pixels, turns)
    return pixels[:, ::-1] if mirrored else pixels


def _largest_of_ppm(image: Image.Image) -> int:
    """Return the maximum in the header of a PGM or PPM whose samples Pillow scales to 16 bits; 0 for other files."""
    tiles = getattr(image, "tile", None)  # what is still to be decoded
    if image.format != "PPM" or image.mode != "I" or not tiles:
        return 0
    arguments = tiles[0][3]
    return int(arguments[-1]) if isinstance(arguments, tuple) and isinstance(arguments[-1], int) else 0


def _tag(image: Image.Image, number: int, default: int) -> tuple[Any, ...]:
    values = image.tag_v2.get(number, default)  # type: ignore[attr-defined]
    if isinstance(values, tuple):
        return values or (default,)
    return (values,)
