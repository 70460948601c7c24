"""Part 1, features: the frozen backbone's maps, averaged locally, on one grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from anomalib_synth.detectors.backbone import FrozenBackbone

_STRIDE = 8  # wanted stride of the grid, in pixels


class GridFeatures(nn.Module):
    """Local features of an image on one grid: that of the layer whose stride is closest to 8.

    Each layer's map is averaged over 3 x 3 cells (fewer at the border), as PatchCore does (arXiv 2106.08265, section
    3.1). Finer maps are reduced to the grid by area averaging, coarser ones enlarged bilinearly, and all are
    concatenated. If that gives more than ``channels`` channels, a fixed random orthogonal projection, drawn from a
    seed, reduces them to that number, in place of PaDiM's random choice of channels (arXiv 2011.08785, section 3.1).

    Args:
        backbone: Frozen feature extractor.
        channels: The most channels to keep.
        seed: Seed of the projection.

    Shape:
        (B, 3, H, W), normalised → (B, C, h, w), (H / 8, W / 8) where a layer has stride 8; ``channels`` holds C
    """

    def __init__(self, backbone: FrozenBackbone, *, channels: int, seed: int = 0) -> None:
        super().__init__()
        self.backbone = backbone
        total = sum(backbone.channels)
        self.channels = min(total, channels)
        self._level = min(range(len(backbone.strides)), key=lambda level: abs(backbone.strides[level] - _STRIDE))
        projection = torch.empty(0) if total <= channels else draw_projection(total, channels, seed)
        self.register_buffer("projection", projection)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features."""
        maps = [F.avg_pool2d(each, 3, 1, 1, count_include_pad=False) for each in self.backbone(images)]
        grid = maps[self._level].shape[-2:]
        features = torch.cat([bring_to_grid(each, grid) for each in maps], 1)
        if not self.projection.numel():
            return features
        return F.conv2d(features, self.projection[:, :, None, None])

    def grid_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return (height, width) of the grid for images of this (height, width)."""
        with torch.no_grad():
            maps = self.backbone(torch.zeros(1, 3, *size, device=next(self.backbone.parameters()).device))
        height, width = maps[self._level].shape[-2:]
        return int(height), int(width)


def bring_to_grid(features: torch.Tensor, grid: tuple[int, int] | torch.Size) -> torch.Tensor:
    """Return a map (B, C, h, w) resampled to a grid: by area averaging if it is finer, else bilinearly."""
    height, width = features.shape[-2:]
    if (height, width) == tuple(grid):
        return features
    if height >= grid[0] and width >= grid[1]:
        if height % grid[0] == 0 and width % grid[1] == 0:
            return F.avg_pool2d(features, (height // grid[0], width // grid[1]))  # the same, but exportable
        return F.adaptive_avg_pool2d(features, tuple(grid))
    return F.interpolate(features, tuple(grid), mode="bilinear", align_corners=False)


def draw_projection(total: int, channels: int, seed: int) -> torch.Tensor:
    """Return a (channels, total) matrix with orthonormal rows."""
    generator = torch.Generator().manual_seed(seed)
    directions, _ = torch.linalg.qr(torch.randn(total, channels, generator=generator, dtype=torch.float64))
    return directions.T.float().contiguous()
