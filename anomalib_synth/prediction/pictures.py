"""Pictures of what was found: the image with the outline and the box, and the crop around it."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from anomalib_synth.prediction.regions import PixelBox, lay_on_image

if TYPE_CHECKING:
    import torch

    from anomalib_synth.prediction.regions import AnomalousRegion

_LONG_SIDE = (480, 1600)  # pixels of a picture: a smaller image is enlarged, a larger one reduced
_QUALITY = 90
_AROUND = 0.25  # margin of a crop at each side, as a share of the box's width or height
_HALO, _OUTLINE, _BOX = (0, 0, 0), (255, 45, 120), (255, 214, 10)


def draw_picture(pixels: np.ndarray, place: AnomalousRegion | None, view: torch.Tensor | None) -> bytes:
    """Return a JPEG file of an image with the outline of what was found, and a box around its most anomalous region.

    Args:
        pixels: (H, W, 3) uint8.
        place: The region; None leaves the image as it is.
        view: Where the image's pixels are on the detector's map; None leaves the image as it is.
    """
    import cv2

    height, width = pixels.shape[:2]
    long_side = max(height, width)
    scale = min(max(_LONG_SIDE[0], long_side), _LONG_SIDE[1]) / long_side
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    image = Image.fromarray(pixels)
    canvas = np.array(image if size == (height, width) else image.resize(size[::-1], Image.Resampling.BILINEAR))
    if place is not None and view is not None:
        line = max(1, round(max(size) / 400))
        outline = lay_on_image(place.outline, view, size).astype(np.uint8)
        contours, _ = cv2.findContours(outline, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        corners = _corners(place.box, size, (height, width), line)
        for colour, thickness in ((_HALO, line + 2), (_OUTLINE, line)):
            cv2.drawContours(canvas, contours, -1, colour, thickness, cv2.LINE_AA)
        for colour, thickness in ((_HALO, line + 2), (_BOX, line)):
            cv2.rectangle(canvas, *corners, colour, thickness)
    buffer = BytesIO()
    Image.fromarray(canvas).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def cut_crop(pixels: np.ndarray, box: PixelBox, least: int) -> bytes:
    """Return a PNG file of a box with a quarter of its width and height at each side, at the image's resolution.

    Args:
        pixels: (H, W, 3) uint8.
        box: The box.
        least: Least length of each side of the crop in pixels, where the image is that large.
    """
    (left, right), (top, bottom) = (
        _widen(start, length, least, limit)
        for start, length, limit in ((box.left, box.width, pixels.shape[1]), (box.top, box.height, pixels.shape[0]))
    )
    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels[top:bottom, left:right])).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def _widen(start: int, length: int, least: int, limit: int) -> tuple[int, int]:
    """Return where a crop begins and ends along one side of the image, which is ``limit`` pixels long."""
    wanted = min(limit, max(least, round(length * (1 + 2 * _AROUND))))
    begin = min(max(start + (length - wanted) // 2, 0), limit - wanted)
    return begin, begin + wanted


def _corners(
    box: PixelBox, size: tuple[int, int], full: tuple[int, int], margin: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return two corners of a box on a picture, a little outside it."""
    x, y = size[1] / full[1], size[0] / full[0]
    first = (round(box.left * x) - 2 * margin, round(box.top * y) - 2 * margin)
    return first, (round((box.left + box.width) * x) + 2 * margin, round((box.top + box.height) * y) + 2 * margin)
