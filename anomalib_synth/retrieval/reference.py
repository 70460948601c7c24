"""Plain, mild defects drawn on normals: what they do to a window's similarity is what a good sample may do."""

from __future__ import annotations

import math

import torch

from anomalib_synth.retrieval.windows import FilterWindow

_SOFT = 0.25  # share of the way to the middle over which it fades in
_THIN = 0.06  # half width of a line, of its length


def draw_reference(
    image: torch.Tensor, window: FilterWindow, *, length: int, contrast: float, number: int
) -> torch.Tensor:
    """Return an image (C, H, W) in [0, 1] with an ellipse or a line in the middle of a window, darker or lighter.

    Args:
        image: (C, H, W) in [0, 1].
        window: The window.
        length: Length of the defect in pixels.
        contrast: How much darker or lighter it is, in (0, 1].
        number: Draws shape, tone and direction; equal numbers draw the same.
    """
    side, top, left = window
    angle, tone, shape = torch.rand(3, generator=torch.Generator().manual_seed(number)).tolist()
    y = (torch.arange(side, dtype=torch.float32) - (side - 1) / 2)[:, None]
    x = (torch.arange(side, dtype=torch.float32) - (side - 1) / 2)[None]
    cos, sin = math.cos(math.pi * angle), math.sin(math.pi * angle)
    along, across = (cos * x + sin * y).abs() / (length / 2), (cos * y - sin * x).abs()
    if shape < 0.5:
        distance = (along * along + (across / (length / 4)) ** 2).sqrt()
    else:
        distance = torch.maximum(along, across / max(1.0, _THIN * length))
    change = ((1 - distance) / _SOFT).clamp(0, 1) * (contrast if tone < 0.5 else -contrast)
    drawn = image.clone()
    drawn[:, top : top + side, left : left + side] += change
    return drawn.clamp(0, 1)
