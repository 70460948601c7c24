"""Fills a hole in an image from what is around it."""

from __future__ import annotations

import torch
from torch.nn import functional as F

_NOTHING = 0.5


def fill_from_around(images: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Replace hidden pixels by a smooth continuation of the visible ones, by pull-push on an image pyramid.

    The hidden pixels have no influence on the result.

    Args:
        images: (B, C, h, w) in [0, 1].
        hidden: (B, 1, h, w), non-zero where pixels are hidden.

    Returns:
        (B, C, h, w); mid-grey if the whole image is hidden.
    """
    hole = hidden > 0
    seen = (~hole).to(images.dtype)
    levels = [(images.masked_fill(hole, 0.0), seen)]
    while min(levels[-1][1].shape[-2:]) > 1 and not levels[-1][1].all():
        levels.append(tuple(F.avg_pool2d(level, 2, ceil_mode=True) for level in levels[-1]))
    filled = torch.full_like(levels[-1][0], _NOTHING)
    for value, weight in reversed(levels):
        around = F.interpolate(filled, value.shape[-2:], mode="bilinear", align_corners=False)
        own = value / weight.clamp_min(1e-6)
        filled = torch.where(weight > 0, own, around)
    return torch.where(hole, filled, images)
