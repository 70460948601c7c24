"""Resamples windows at displaced positions: kornia's remap, with coordinates from exactly rounded operations only.

kornia's matrix warps are not used, because the last bits of a matrix inverse or product may depend on the batch size.
Nor is its ``elastic_transform2d``: it blurs a field as large as the window, which is five times as slow at 256 x 256.
The fields here are blurred once, at one size, and then looked up.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from kornia.filters import gaussian_blur2d
from kornia.geometry.transform import remap

from anomalib_synth.functional.noise import white_noise

ELASTIC_FIELDS = 16
_FIELD_SIDE, _FIELD_SMOOTHING = 96, 6.0


def sample_at(
    image: torch.Tensor, column: torch.Tensor, row: torch.Tensor, *, padding_mode: str = "border"
) -> torch.Tensor:
    """Sample images at fractional pixel positions, bilinearly.

    Args:
        image: (N, C, H, W) windows.
        column: (N, 1, h, w) columns, 0 at the centre of the first one.
        row: (N, 1, h, w) rows, 0 at the centre of the first one.
        padding_mode: Values outside the image: ``"border"`` repeats the border, ``"reflection"`` mirrors the image.

    Returns:
        (N, C, h, w) float32.
    """
    height, width = image.shape[-2:]
    return remap(
        image,
        ((2 * column + 1) / width - 1)[:, 0],
        ((2 * row + 1) / height - 1)[:, 0],
        padding_mode=padding_mode,
        align_corners=False,
        normalized_coordinates=True,
    )


def displace(image: torch.Tensor, dx: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
    """Move the content of images: ``output(x, y) = image(x + dx, y + dy)``.

    Args:
        image: (N, C, h, w) windows.
        dx: (N, 1, h, w) pixels.
        dy: (N, 1, h, w) pixels.
    """
    columns, rows = pixel_grid(image)
    return sample_at(image, columns + dx, rows + dy)


def turn(image: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn the content of a window about its centre; values outside the window are mirrored.

    Args:
        image: (N, C, h, w) windows.
        cos: (N, 1, 1, 1) of the angle, from x towards y.
        sin: (N, 1, 1, 1) of the same angle.
    """
    columns, rows = pixel_grid(image)
    middle_x, middle_y = (image.shape[-1] - 1) / 2, (image.shape[-2] - 1) / 2
    x, y = columns - middle_x, rows - middle_y
    return sample_at(image, x * cos + y * sin + middle_x, y * cos - x * sin + middle_y, padding_mode="reflection")


def pixel_grid(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the columns (1, 1, 1, w) and the rows (1, 1, h, 1) of the pixels of windows (N, C, h, w)."""
    h, w = image.shape[-2:]
    columns = torch.arange(w, device=image.device, dtype=torch.float32).view(1, 1, 1, -1)
    rows = torch.arange(h, device=image.device, dtype=torch.float32).view(1, 1, -1, 1)
    return columns, rows


def shift_planes(image: torch.Tensor, dx: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
    """Move each colour plane by whole pixels, repeating the border.

    Args:
        image: (N, C, h, w) windows.
        dx: (N, C, 1, 1) whole pixels; ``output(x) = image(x + dx)``.
        dy: (N, C, 1, 1) whole pixels.
    """
    h, w = image.shape[-2:]
    column = torch.arange(w, device=image.device).view(1, 1, 1, -1) + dx.long()
    row = torch.arange(h, device=image.device).view(1, 1, -1, 1) + dy.long()
    index = row.clamp(0, h - 1) * w + column.clamp(0, w - 1)
    return image.flatten(2).gather(2, index.flatten(2).expand(*image.shape[:2], -1)).view_as(image)


def elastic_field(which: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the displacement of an elastic field (Simard et al. 2003): white noise blurred by a Gaussian.

    Args:
        which: (N, 1, 1, 1) index of the field, a whole number in [0, 16).
        a: (N, 1, h, w) horizontal position in the field, in [-1, 1] from side to side.
        b: (N, 1, h, w) vertical position in the field, in [-1, 1].

    Returns:
        (N, 2, h, w) float32 in [-1, 1]: along x and along y.
    """
    fields = _elastic_fields().to(a.device)[which.flatten().long()]
    half = (_FIELD_SIDE - 1) / 2
    return sample_at(fields, half + half * a, half + half * b)


@lru_cache(maxsize=1)
def _elastic_fields() -> torch.Tensor:
    """Render the fields (16, 2, 96, 96) in one call, which is always the same and so gives the same bits."""
    seeds = torch.arange(2 * ELASTIC_FIELDS)
    place = torch.arange(_FIELD_SIDE, dtype=torch.float32).expand(len(seeds), 1, 1, -1)
    noise = white_noise(seeds, place, place.transpose(2, 3))
    size = 2 * round(3 * _FIELD_SMOOTHING) + 1
    smooth = gaussian_blur2d(noise - 0.5, (size, size), (_FIELD_SMOOTHING, _FIELD_SMOOTHING), border_type="circular")
    smooth = smooth / smooth.abs().amax((2, 3), keepdim=True)
    return ((smooth * 2.0**12).round() * 2.0**-12).view(ELASTIC_FIELDS, 2, _FIELD_SIDE, _FIELD_SIDE)
