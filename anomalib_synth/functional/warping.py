"""Resampling of a window at displaced places."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def sample_at(image: torch.Tensor, column: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    """Look an image up at fractional pixel positions, bilinearly; positions outside take the border's colour.

    Args:
        image: (N, C, h, w) windows.
        column: (N, 1, h, w) columns, 0 at the centre of the first one.
        row: (N, 1, h, w) rows, 0 at the centre of the first one.

    Returns:
        (N, C, h, w) float32.
    """
    h, w = image.shape[-2:]
    grid = torch.cat([(2 * column + 1) / w - 1, (2 * row + 1) / h - 1], dim=1).permute(0, 2, 3, 1)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)


def displace(image: torch.Tensor, dx: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
    """Move the content of each pixel: ``output(x, y) = image(x + dx, y + dy)``.

    Args:
        image: (N, C, h, w) windows.
        dx: (N, 1, h, w) pixels.
        dy: (N, 1, h, w) pixels.
    """
    h, w = image.shape[-2:]
    columns = torch.arange(w, device=image.device, dtype=image.dtype).view(1, 1, 1, -1)
    rows = torch.arange(h, device=image.device, dtype=image.dtype).view(1, 1, -1, 1)
    return sample_at(image, columns + dx, rows + dy)


def shift_planes(image: torch.Tensor, dx: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
    """Move each colour plane by whole pixels, repeating the border.

    Args:
        image: (N, C, h, w) windows.
        dx: (N, C, 1, 1) whole pixels: ``output(x) = image(x + dx)``.
        dy: (N, C, 1, 1) whole pixels.
    """
    h, w = image.shape[-2:]
    column = torch.arange(w, device=image.device).view(1, 1, 1, -1) + dx.long()
    row = torch.arange(h, device=image.device).view(1, 1, -1, 1) + dy.long()
    index = row.clamp(0, h - 1) * w + column.clamp(0, w - 1)
    return image.flatten(2).gather(2, index.flatten(2).expand(*image.shape[:2], -1)).view_as(image)
