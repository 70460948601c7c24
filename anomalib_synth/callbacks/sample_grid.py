"""A picture of the first samples of an epoch: source, image, mask and caption."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

if TYPE_CHECKING:
    import torch

    from anomalib_synth.sample import AnomalySample

_CELL = 160
_TEXT = 34
_CONTOUR = (255, 40, 40)


def draw_sample_grid(sample: AnomalySample, rows: list[int]) -> np.ndarray:
    """Draw source, image, and image with the mask's outline side by side, with the caption beneath.

    A sample that failed its checks shows the reason in place of the caption.

    Args:
        sample: The samples.
        rows: Which rows to draw.

    Returns:
        (H, W, 3) uint8, two samples a line.
    """
    lines = (len(rows) + 1) // 2
    canvas = Image.new("RGB", (6 * _CELL + 20, lines * (_CELL + _TEXT)), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    for position, row in enumerate(rows):
        left, top = (position % 2) * (3 * _CELL + 20), (position // 2) * (_CELL + _TEXT)
        source, image = _pixels(sample.source[row]), _pixels(sample.image[row])
        outlined = image.copy()
        outlined[_outline(sample.mask[row, 0])] = _CONTOUR
        for column, picture in enumerate((source, image, outlined)):
            shown = ImageOps.contain(Image.fromarray(picture), (_CELL - 4, _CELL - 4))
            canvas.paste(shown, (left + column * _CELL, top))
        text = f"{sample.caption[row]} (quality {float(sample.quality[row]):.2f})"
        text = f"not drawn: {sample.reason[row]}" if sample.reason[row] else text
        pen.text((left, top + _CELL), text, fill="black", font=font)
    return np.asarray(canvas)


def _pixels(image: torch.Tensor) -> np.ndarray:
    """(C, H, W) in [0, 1] -> (H, W, 3) uint8."""
    pixels = (image.detach().float().cpu().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels.copy()


def _outline(mask: torch.Tensor) -> np.ndarray:
    """(H, W) in {0, 1} -> (H, W) bool, the pixels just outside the mask."""
    inside = mask.detach().cpu().numpy() > 0
    padded = np.pad(inside, 1)
    grown = padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return grown & ~inside
