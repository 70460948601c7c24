"""A donor, transformed for the image that it is pasted on, and where it goes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from anomalib_synth.generators.placement import place_centre

if TYPE_CHECKING:
    from anomalib_synth.generators.donors import Donor
    from anomalib_synth.generators.families.family import Params


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A donor, transformed for one image.

    Shape:
        - ``pixels``: (C, h, w) float32 in [0, 1]; ``mask``: (1, h, w) bool
        - ``reaches``: (3, 3) bool, the borders that cut the defect off; see :class:`.donors.Donor`
    """

    pixels: torch.Tensor
    mask: torch.Tensor
    reaches: torch.Tensor


def transform_donor(donor: Donor, params: Params, shape: torch.Size) -> Patch:
    """Resize, mirror and turn a donor for an image of a shape (C, H, W); a donor that is too large is shrunk."""
    channels, *size = shape
    limit = size[::-1] if params["turns"] % 2 else size
    full = [
        length * own / of * params["scale"]
        for length, own, of in zip(donor.mask.shape, size, donor.image_size, strict=True)
    ]
    shrink = min(1.0, *(most / length for most, length in zip(limit, full, strict=True)))
    sides = [min(most, max(2, round(length * shrink))) for most, length in zip(limit, full, strict=True)]
    for axis, ends in enumerate((donor.reaches[::2, 1], donor.reaches[1, ::2])):
        if bool(ends.all()):
            sides[axis] = limit[axis]
    pixels = F.interpolate(donor.pixels[None].float() / 255, size=sides, mode="bilinear", antialias=True)[0]
    mask = F.adaptive_max_pool2d(donor.mask[None].float(), sides) > 0  # any overlap, or thin scratches vanish
    if channels == 1:
        pixels = pixels.mean(0, keepdim=True)
    parts = [pixels.clamp(0, 1), mask, donor.reaches[None]]
    if params["mirrored"]:
        parts = [part.flip(2) for part in parts]
    pixels, mask, reaches = (torch.rot90(part, int(params["turns"]), dims=(1, 2)).contiguous() for part in parts)
    return Patch(pixels=pixels, mask=mask, reaches=reaches[0])


def find_corner(patch: Patch, params: Params, cells: np.ndarray | None, height: int, width: int) -> tuple[int, int]:
    """Return the row and column of the patch's corner, and add the defect's centre to the parameters."""
    h, w = patch.mask.shape[-2:]
    grid = np.ones((1, 1), dtype=bool) if cells is None else cells
    sides: dict[str, tuple[Any, Any]] = {
        "top": (0, slice(None)),
        "bottom": (-1, slice(None)),
        "left": (slice(None), 0),
        "right": (slice(None), -1),
    }
    reached = dict(zip(("top", "left", "right", "bottom"), patch.reaches.flatten()[1::2].tolist(), strict=True))
    allowed = grid
    for name, side in sides.items():
        near = np.zeros_like(allowed)
        near[side] = allowed[side]
        reached[name] = reached[name] and bool(near.any())
        allowed = near if reached[name] else allowed
    centre_y, centre_x = place_centre(params, allowed, height, width)
    top = min(max(math.floor(centre_y) - h // 2, 0), height - h)
    left = min(max(math.floor(centre_x) - w // 2, 0), width - w)
    top = 0 if reached["top"] else height - h if reached["bottom"] else top
    left = 0 if reached["left"] else width - w if reached["right"] else left
    params["centre_y"], params["centre_x"] = top + h / 2, left + w / 2
    return top, left
