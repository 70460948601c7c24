"""Part 5, scales: resizes the image to several sizes and the maps back, as products with fixed matrices."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

_MULTIPLE = 32  # the coarsest stride in common use, so that the grids of all layers nest


class Resample(nn.Module):
    """Applies one linear map along the height and one along the width: (B, C, H, W) → (B, C, h, w).

    Resizing and smoothing are linear, so products with fixed matrices do both. They give the same numbers in torch,
    ONNX and OpenVINO, whereas antialiased resizing is an operator that not all three have.

    Args:
        rows: (h, H) matrix.
        columns: (w, W) matrix.
    """

    def __init__(self, rows: torch.Tensor, columns: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns.T.contiguous(), persistent=False)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the resampled maps."""
        return self.rows @ (maps @ self.columns)


def scaled_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return the height and width at which an image's longer side is about ``side``.

    The aspect ratio is kept, up to rounding both sides to multiples of 32.

    Args:
        size: Height and width of the image in pixels.
        side: Wanted length of the longer side, in pixels.

    Example:
        >>> scaled_size((256, 256), 160), scaled_size((512, 208), 256)
        ((160, 160), (256, 96))
    """
    factor = side / max(size)
    height, width = (max(_MULTIPLE, _MULTIPLE * round(factor * length / _MULTIPLE)) for length in size)
    return height, width


def make_resize(size: tuple[int, int], target: tuple[int, int]) -> nn.Module:
    """Return the bilinear, antialiased resize between two (height, width); the identity if they are equal."""
    if tuple(size) == tuple(target):
        return nn.Identity()
    rows, columns = (resize_matrix(old, new) for old, new in zip(size, target, strict=True))
    return Resample(rows, columns)


def make_upsampling(grid: tuple[int, int], size: tuple[int, int], sigma: float) -> Resample:
    """Return the map from a grid of cells to the image: bilinear interpolation, then a Gaussian blur.

    Args:
        grid: Height and width of the grid.
        size: Height and width of the image.
        sigma: Deviation of the blur as a share of each side, >= 0; 0 for no blur.
    """
    rows, columns = (
        blur_matrix(new, sigma * new) @ resize_matrix(old, new) for old, new in zip(grid, size, strict=True)
    )
    return Resample(rows, columns)


def resize_matrix(old: int, new: int) -> torch.Tensor:
    """Return the (new, old) matrix of a bilinear resize along one side, antialiased if ``new < old``."""
    rows = F.interpolate(torch.eye(old)[None, None], (new, old), mode="bilinear", antialias=new < old)
    return rows[0, 0].contiguous()


def blur_matrix(length: int, sigma: float) -> torch.Tensor:
    """Return the (length, length) matrix of a Gaussian blur, each row normalised to sum 1, also at the border.

    Args:
        length: Number of pixels.
        sigma: Deviation in pixels; 0 gives the identity. The kernel ends at 4 deviations.
    """
    if sigma <= 0:
        return torch.eye(length)
    place = torch.arange(length, dtype=torch.float64)
    distance = place[:, None] - place[None]
    weights = torch.exp(-distance.square() / (2 * sigma**2)) * (distance.abs() <= math.ceil(4 * sigma))
    return (weights / weights.sum(1, keepdim=True)).float()
