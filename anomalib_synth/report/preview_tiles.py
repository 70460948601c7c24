"""Small pictures of one sample: before, after, the outline, and the place of the defect enlarged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageOps
from scipy import ndimage

if TYPE_CHECKING:
    import torch

    from anomalib_synth.sample import AnomalySample

    Box = tuple[int, int, int, int]

TILES = {
    "source": "good image",
    "image": "with the defect",
    "outline": "its outline",
    "before": "enlarged, before",
    "after": "enlarged, after",
}
_OUTLINE, _FRAME = (255, 45, 120), (255, 255, 255)
_MARGIN = 1.5  # side of the enlarged place, as a multiple of the defect's side
_LEAST, _MOST = 0.2, 0.4  # least share of the image's shorter side, and largest share of its longer side


def draw_tiles(sample: AnomalySample, row: int, size: int) -> dict[str, Image.Image]:
    """Draw the pictures of a row; each keeps the proportions of what it shows.

    Args:
        sample: The batch.
        row: Index of the row.
        size: Longer side of each picture in pixels.

    Returns:
        A picture for each of ``TILES``; if the draw failed its checks, only the source, in grey.
    """
    source, image = to_pixels(sample.source[row]), to_pixels(sample.image[row])
    mask = sample.mask[row, 0].detach().cpu().numpy() > 0
    whole = _fit(source, size)
    if not mask.any():
        grey = ImageOps.grayscale(whole).convert("RGB")
        return {"source": Image.blend(grey, Image.new("RGB", grey.size, (200, 200, 200)), 0.5)}
    box = find_place(source, image, mask)
    place = np.s_[box[1] : box[3], box[0] : box[2]]
    return {
        "source": whole,
        "image": _fit(image, size),
        "outline": _draw_outline(_fit(image, size), mask, box),
        "before": _fit(source[place], size),
        "after": _fit(image[place], size),
    }


def find_place(source: np.ndarray, image: np.ndarray, mask: np.ndarray) -> Box:
    """Return the part of an image to enlarge: around the mask or, if that is too large, where most changed in it.

    Args:
        source: (H, W, 3) uint8, before.
        image: (H, W, 3) uint8, after.
        mask: (H, W) bool, not empty.

    Returns:
        Left, top, right, bottom, within the image.
    """
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    extent = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    side = round(min(max(_MARGIN * extent, _LEAST * min(height, width)), _MOST * max(height, width)))
    side_y, side_x = min(max(side, 1), height), min(max(side, 1), width)
    if extent <= side:
        top, left = (rows[0] + rows[-1] + 1 - side_y) // 2, (columns[0] + columns[-1] + 1 - side_x) // 2
    else:
        change = np.abs(image.astype(np.int64) - source).sum(2) * mask
        total = np.pad(change.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        inside = (
            total[side_y:, side_x:] - total[:-side_y, side_x:] - total[side_y:, :-side_x] + total[:-side_y, :-side_x]
        )
        top, left = np.unravel_index(inside.argmax(), inside.shape)
    top, left = int(np.clip(top, 0, height - side_y)), int(np.clip(left, 0, width - side_x))
    return left, top, left + side_x, top + side_y


def to_pixels(image: torch.Tensor) -> np.ndarray:
    """Return an image (C, H, W) in [0, 1] as (H, W, 3) uint8."""
    pixels = (image.detach().float().cpu().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def _fit(pixels: np.ndarray, size: int) -> Image.Image:
    return ImageOps.contain(Image.fromarray(np.ascontiguousarray(pixels)), (size, size), Image.Resampling.LANCZOS)


def _draw_outline(shown: Image.Image, mask: np.ndarray, box: Box) -> Image.Image:
    """Draw the border of the mask, two pixels wide in the picture, and a frame around the enlarged place."""
    scale = shown.width / mask.shape[1]
    covered = Image.fromarray(mask.astype(np.uint8) * 255).resize(shown.size, Image.Resampling.BOX)
    inside = np.asarray(covered) > 0  # a cell with any mask counts: thin scratches stay
    pixels = np.array(shown)
    pixels[ndimage.binary_dilation(inside, iterations=2) & ~inside] = _OUTLINE
    outlined = Image.fromarray(pixels)
    frame = [min(round(value * scale), limit - 1) for value, limit in zip(box, shown.size * 2, strict=True)]
    ImageDraw.Draw(outlined).rectangle(frame, outline=_FRAME)
    return outlined
