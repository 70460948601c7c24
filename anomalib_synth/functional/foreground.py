"""Finds the part: an object on a plain background, which is estimated from the image's border; no per-class rules."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from anomalib_synth.functional.masks import box_blur, exact_mean

GRID = 64


def to_grid(image: torch.Tensor) -> torch.Tensor:
    """Average images down to at most 64 x 64 cells: (N, C, H, W) -> (N, C, h, w) float32."""
    height, width = image.shape[-2:]
    return F.adaptive_avg_pool2d(image.float(), (min(GRID, height), min(GRID, width)))


def fit_background(grid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Fit the background as a quadratic surface, for uneven light, to the better-fitting half of the border ring.

    Args:
        grid: (N, C, h, w) image on the coarse grid.

    Returns:
        The surface (N, C, h, w), and the 85th percentile of the ring's distance from it (N,), in image units.
    """
    n, c, h, w = grid.shape
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, h, dtype=torch.float64), torch.linspace(-1, 1, w, dtype=torch.float64), indexing="ij"
    )
    basis = torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y], dim=-1).to(grid.device)
    edge = torch.zeros(h, w, dtype=torch.bool)
    edge[[0, -1]] = edge[:, [0, -1]] = True
    edge = edge.to(grid.device)
    ring_basis, ring = basis[edge], grid.double()[:, :, edge]
    surface = ring.median(dim=-1).values[..., None, None].expand(n, c, h, w)
    for _ in range(2):
        deviation = (ring - surface[:, :, edge]).abs().amax(1)
        kept = deviation <= deviation.median(dim=-1, keepdim=True).values
        surface = torch.stack([_least_squares(ring_basis[row], ring[i][:, row], basis) for i, row in enumerate(kept)])
    deviation = (ring - surface[:, :, edge]).abs().amax(1)
    spread = deviation.sort(dim=-1).values[:, int(0.85 * (deviation.shape[-1] - 1))]
    return surface.float(), spread.float()


def distance_to_background(grid: torch.Tensor) -> torch.Tensor:
    """Return how far each cell is from the fitted background: (N, C, h, w) -> (N, 1, h, w), in image units."""
    surface, _ = fit_background(grid)
    return (grid - surface).abs().amax(1, keepdim=True)


def segment_part(distance: torch.Tensor, threshold: float) -> torch.Tensor:
    """Segment what differs from the background, and fill its holes.

    Background is every cell that is connected to the border through cells that look like background; all the rest is
    the part. So a hole through the part that shows the background, or a logo in its colour, does not count as
    background.

    Args:
        distance: (N, 1, h, w), the result of :func:`distance_to_background`.
        threshold: Least distance of the part, in image units.

    Returns:
        (N, 1, h, w) bool.
    """
    like_border = distance <= threshold
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


def refine_part(image: torch.Tensor, cells: torch.Tensor, threshold: float, cell: int) -> torch.Tensor:
    """Leave the pixels that look like the background out of the cells at the part's edge.

    Args:
        image: (N, C, h, w) windows.
        cells: (N, 1, h, w) in {0, 1}, the part in cells.
        threshold: Least distance of the part from the background around it, in image units.
        cell: Side of a cell in pixels.

    Returns:
        (N, 1, h, w) in {0, 1}, a subset of ``cells``.
    """
    refined = cells.clone()
    for n in range(len(image)):
        outside = 1 - cells[n : n + 1]
        if not bool(outside.any()) or bool(outside.all()):
            continue
        window = image[n : n + 1]
        background = torch.stack([exact_mean(plane, outside[:, 0]) for plane in window.unbind(1)], dim=1)
        off = box_blur((window - background[:, :, None, None]).abs().amax(1, keepdim=True))
        edge = box_blur(outside, cell) > 0
        refined[n : n + 1] *= (~edge | (off > threshold)).float()
    return refined


def _least_squares(ring_basis: torch.Tensor, ring: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
    """Fit (K, 6) basis values to (C, K) colours and return the surface (C, h, w), rounded to multiples of 2**-16."""
    ridge = 1e-6 * torch.eye(6, dtype=torch.float64, device=ring.device)
    weights = torch.linalg.solve(ring_basis.T @ ring_basis + ridge, ring_basis.T @ ring.T)
    return ((basis @ weights).permute(2, 0, 1) * 2.0**16).round() * 2.0**-16


def otsu_threshold(values: torch.Tensor, bins: int = 128) -> float:
    """Return the threshold in [0, 1] that best splits ``values`` into two classes (Otsu 1979)."""
    histogram = torch.histc(values.float().cpu(), bins=bins, min=0.0, max=1.0).double()
    centres = (torch.arange(bins, dtype=torch.float64) + 0.5) / bins
    weight = histogram.cumsum(0)
    moment = (histogram * centres).cumsum(0)
    other = weight[-1] - weight
    between = (moment[-1] * weight / weight[-1] - moment) ** 2 / (weight * other).clamp_min(1e-12)
    return float(between.argmax() + 1) / bins


def _dilate(mask: torch.Tensor) -> torch.Tensor:
    """Grow a (N, 1, h, w) bool mask by one cell in the four directions."""
    grown = mask.clone()
    grown[..., 1:, :] |= mask[..., :-1, :]
    grown[..., :-1, :] |= mask[..., 1:, :]
    grown[..., :, 1:] |= mask[..., :, :-1]
    grown[..., :, :-1] |= mask[..., :, 1:]
    return grown
