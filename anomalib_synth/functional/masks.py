"""Shapes and filters on coordinate grids, with exactly rounded operations only (see :mod:`.noise`)."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def smoothstep(value: torch.Tensor, start: float | torch.Tensor, stop: float | torch.Tensor) -> torch.Tensor:
    """Return the cubic step from 0 at ``start`` to 1 at ``stop``; with ``start > stop`` it falls."""
    t = ((value - start) / (stop - start)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def triangle_wave(phase: torch.Tensor) -> torch.Tensor:
    """Return a triangle wave of period 1, from -1 (phase 0) to 1 (phase 0.5), in place of a sine."""
    return 1 - 4 * ((phase - phase.floor()) - 0.5).abs()


def soft_wave(phase: torch.Tensor) -> torch.Tensor:
    """Return a smooth wave of period 1 in [-1, 1], from a cubic in place of a sine."""
    t = triangle_wave(phase)
    return t * (1.5 - 0.5 * t * t)


def blob(u: torch.Tensor, v: torch.Tensor, radius_u: torch.Tensor, radius_v: torch.Tensor) -> torch.Tensor:
    """Return the elliptic distance from the centre: 0 at the centre, 1 on the ellipse, larger outside."""
    a, b = u / radius_u, v / radius_v
    return (a * a + b * b).sqrt()


def rectangle(u: torch.Tensor, v: torch.Tensor, half_u: torch.Tensor, half_v: torch.Tensor) -> torch.Tensor:
    """Return 1.0 inside the rectangle |u| <= half_u, |v| <= half_v, else 0.0."""
    return ((u.abs() <= half_u) & (v.abs() <= half_v)).to(u.dtype)


def box_blur(image: torch.Tensor, radius: int = 1) -> torch.Tensor:
    """Average over a (2 radius + 1) square, replicating the border.

    It sums shifted copies in a fixed order, because a convolution may choose its algorithm by the batch size. It is
    also four to five times as fast as kornia's blur (0.4 ms instead of 2.1 for 3 x 256 x 256).

    Shape:
        (N, C, h, w) -> the same.
    """
    if radius < 1:
        return image
    for dim, sides in ((-1, (radius, radius, 0, 0)), (-2, (0, 0, radius, radius))):
        n = image.shape[dim]
        padded = F.pad(image, sides, mode="replicate")
        total = padded.narrow(dim, 0, n) + padded.narrow(dim, 1, n)
        for offset in range(2, 2 * radius + 1):
            total += padded.narrow(dim, offset, n)
        image = total.mul_(1.0 / (2 * radius + 1))
    return image


def soften_inside(mask: torch.Tensor) -> torch.Tensor:
    """Soften a mask (N, 1, h, w) of zeros and ones at its border, inwards only; thin parts stay 1.

    A plain average would reduce a line one pixel wide to a third.
    """
    blurred = box_blur(mask) * mask
    return blurred / F.max_pool2d(blurred, 3, stride=1, padding=1).clamp_min(1e-6)


def exact_mean(
    value: torch.Tensor, weight: torch.Tensor | None = None, *, count: torch.Tensor | None = None
) -> torch.Tensor:
    """Average over all but the first dimension, independent of the order of summation.

    Values are truncated to multiples of 2**-20 and summed as integers, because the order in which floats are summed by
    threads and vector units depends on the batch.

    Args:
        value: (N, ...) in about [-8, 8].
        weight: (N, ...) of zeros and ones, or None.
        count: (N,) number of ones in ``weight``, if known.

    Returns:
        (N,) float32; 0 where the weights are all zero.
    """
    scaled = value * 2.0**20 if weight is None else (value * weight).mul_(2.0**20)
    total = scaled.int().flatten(1).sum(1)
    if weight is None:
        return (total.double() / (value[0].numel() * 2.0**20)).float()
    count = count_pixels(weight) if count is None else count
    return (total.double() / (count.clamp_min(1) * 2.0**20)).float()


def count_pixels(mask: torch.Tensor) -> torch.Tensor:
    """Count the non-zero elements of each row: (N, ...) -> (N,) int64."""
    return (mask != 0).flatten(1).sum(1, dtype=torch.int32).long()  # int64 sums are not vectorised: four times as slow
