"""The views of a sample that a score looks at: the whole image, and the window around its mask."""

from __future__ import annotations

import torch
from torch.nn import functional as F

WINDOW_SIZE = 64
MARGIN = 1.0


def find_window(
    mask: torch.Tensor, *, least: int = WINDOW_SIZE // 2, margin: float = MARGIN
) -> tuple[int, int, int, int]:
    """Return the window around a mask, as top, left, height and width in pixels.

    It is a square around the mask's bounding box, moved to lie inside the image. Where the image is too narrow for the
    square, it is as wide as the image: the mask is never cut.

    Args:
        mask: (1, H, W), not empty.
        least: Least side in pixels.
        margin: How much longer the side is than the box's longer side: 1 is twice as long.
    """
    inside = mask[0] > 0
    rows, columns = inside.any(1).nonzero().flatten(), inside.any(0).nonzero().flatten()
    box = [(int(line[0]), int(line[-1]) + 1) for line in (rows, columns)]
    side = max(least, round((1 + margin) * max(end - start for start, end in box)))
    spans = []
    for (start, end), length in zip(box, mask.shape[-2:], strict=True):
        span = min(side, length)
        spans.append((min(max(0, (start + end - span) // 2), length - span), span))
    (top, height), (left, width) = spans
    return top, left, height, width


def fit_view(image: torch.Tensor, size: int) -> torch.Tensor:
    """Return an image (C, H, W) as (3, size, size) float32: resized with antialiasing, grey as three channels."""
    view = image.float()[None].contiguous()  # the memory's order would change the last bits
    if view.shape[-2:] != (size, size):
        view = F.interpolate(view, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return view[0].clamp(0, 1).expand(3, -1, -1)


def crop_view(
    image: torch.Tensor,
    mask: torch.Tensor,
    size: int,
    *,
    least: int = WINDOW_SIZE // 2,
    margin: float = MARGIN,
) -> torch.Tensor:
    """Return the window around the mask (1, H, W) of an image (C, H, W), as (3, size, size) float32."""
    top, left, height, width = find_window(mask, least=least, margin=margin)
    return fit_view(image[:, top : top + height, left : left + width], size)
