"""Where the part is: an object on a plain background, told from its own border; no per-class rule."""

from __future__ import annotations

import torch
from torch.nn import functional as F

GRID = 64


def to_grid(image: torch.Tensor) -> torch.Tensor:
    """Average an image down to at most GRID x GRID cells: (N, C, H, W) -> (N, C, h, w) float32."""
    height, width = image.shape[-2:]
    return F.adaptive_avg_pool2d(image.float(), (min(GRID, height), min(GRID, width)))


def border_statistics(grid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the median colour of the border ring and the largest deviation of 85 % of it from that colour.

    Args:
        grid: (N, C, h, w) image on the coarse grid.

    Returns:
        Colour (N, C, 1, 1) and spread (N,), both in image units.
    """
    ring = torch.cat([grid[..., 0, :], grid[..., -1, :], grid[..., :, 0], grid[..., :, -1]], dim=-1)
    colour = ring.median(dim=-1).values
    deviation = (ring - colour.unsqueeze(-1)).abs().amax(1)
    spread = deviation.sort(dim=-1).values[:, int(0.85 * (deviation.shape[-1] - 1))]
    return colour[..., None, None], spread


def segment_part(grid: torch.Tensor, threshold: float) -> torch.Tensor:
    """Segment what differs from the border's colour, with its holes filled.

    Background is what is connected to the border through cells that look like it; all the rest is the part. So a
    bright logo, or a hole through the part that shows the background, does not count as background.

    Args:
        grid: (N, C, h, w) image on the coarse grid.
        threshold: Least difference from the border's median colour, in image units.

    Returns:
        (N, 1, h, w) bool.
    """
    colour, _ = border_statistics(grid)
    like_border = (grid - colour).abs().amax(1, keepdim=True) <= threshold
    edge = torch.zeros_like(like_border)
    edge[..., 0, :] = edge[..., -1, :] = True
    edge[..., :, 0] = edge[..., :, -1] = True
    reached = like_border & edge
    for _ in range(GRID):
        grown = _dilate(reached) & like_border
        if torch.equal(grown, reached):
            break
        reached = grown
    return ~reached


def otsu_threshold(values: torch.Tensor, bins: int = 128) -> float:
    """Return the threshold in [0, 1] that best splits ``values`` into two classes (Otsu 1979)."""
    histogram = torch.histc(values.float().cpu(), bins=bins, min=0.0, max=1.0).double()
    centres = (torch.arange(bins, dtype=torch.float64) + 0.5) / bins
    weight = histogram.cumsum(0)
    moment = (histogram * centres).cumsum(0)
    other = weight[-1] - weight
    between = (moment[-1] * weight / weight[-1] - moment) ** 2 / (weight * other).clamp_min(1e-12)
    return float(centres[between.argmax()])


def _dilate(mask: torch.Tensor) -> torch.Tensor:
    """Grow a (N, 1, h, w) bool mask by one cell in the four directions."""
    grown = mask.clone()
    grown[..., 1:, :] |= mask[..., :-1, :]
    grown[..., :-1, :] |= mask[..., 1:, :]
    grown[..., :, 1:] |= mask[..., :, :-1]
    grown[..., :, :-1] |= mask[..., :, 1:]
    return grown
