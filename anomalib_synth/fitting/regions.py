"""Regions in which a defect is learned: its own outline, or another shape that shows a part of it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from anomalib_synth.generators.seeding import RandomStream, hash64

if TYPE_CHECKING:
    from anomalib_synth.fitting.windows import WindowBatch

_RADII = (4.0, 24.0)
_TRIES = 4
_WANTED = 0.5
_LEAST = 6


def vary_regions(batch: WindowBatch, seed: int, *, share: float = 0.5) -> WindowBatch:
    """Replace the defect's outline by another region in a share of the windows.

    A model that only sees outlines learns the type of a defect from the outline, not from the text. So some regions are
    ellipses or rectangles placed over the defect: the part of the defect inside the region stays, the rest is removed.

    Args:
        batch: Windows with defects; not changed in place.
        seed: Seed of the draw.
        share: Share of the windows that get another region, in [0, 1].
    """
    images, masks = batch.image.clone(), batch.mask.clone()
    for row in range(len(masks)):
        rng = RandomStream(hash64(seed, "region", row))
        if rng.unit() >= share:
            continue
        region = _draw_region(rng, batch.mask[row, 0] > 0)
        if region is not None:
            images[row] = torch.where(region, batch.image[row], batch.source[row])
            masks[row, 0] = region.float()
    return replace(batch, image=images, mask=masks)


def _draw_region(rng: RandomStream, outline: torch.Tensor) -> torch.Tensor | None:
    """Return a region (h, w) over an outline, if possible half filled by it; None if each holds too little of it."""
    inside = outline.nonzero()
    best, most = None, 0.0
    for _ in range(_TRIES):
        y, x = inside[int(rng.unit() * len(inside))].tolist()
        region = _draw_shape(rng, outline.shape, y, x)
        held = float((region & outline).sum())
        if held < _LEAST:
            continue
        if held / float(region.sum()) > most:
            best, most = region, held / float(region.sum())
        if most >= _WANTED or rng.unit() < 0.2:  # sometimes take the best so far
            break
    return best


def _draw_shape(rng: RandomStream, size: torch.Size, y: float, x: float) -> torch.Tensor:
    """Return an ellipse or a rectangle around a point, at a random angle."""
    low, high = (math.log(radius) for radius in _RADII)
    long = math.exp(rng.uniform(low, high))
    short = max(long * rng.uniform(0.35, 1.0), 3.0)
    angle = rng.uniform(0, math.pi)
    rows = (torch.arange(size[0]) - y)[:, None]
    columns = torch.arange(size[1]) - x
    u = (columns * math.cos(angle) + rows * math.sin(angle)) / long
    v = (rows * math.cos(angle) - columns * math.sin(angle)) / short
    return (u.abs().maximum(v.abs()) <= 1) if rng.unit() < 0.3 else (u.square() + v.square() <= 1)
