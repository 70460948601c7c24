"""How visible a change is, and how visible one is that changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from anomalib_synth.functional.masks import box_blur, exact_mean

if TYPE_CHECKING:
    from collections.abc import Iterable

_TWO_LEVELS = 2 / 255
_ROUND = 6


def measure_smoothed_visibility(source: torch.Tensor, image: torch.Tensor, mask: torch.Tensor) -> list[float]:
    """Return how visible changes are: smoothed size in the mask over the source's noise there and two grey levels.

    Args:
        source: (B, C, H, W) in [0, 1].
        image: (B, C, H, W) in [0, 1].
        mask: (B, 1, H, W), none empty.
    """
    inside = (mask != 0).float()
    change, noise = map_visibility(source.float(), image.float())
    return rate_visibility(exact_mean(change, inside), exact_mean(noise, inside))


def make_null_edit(image: torch.Tensor) -> torch.Tensor:
    """Return images after an edit that changes nothing: half the resolution, and a quarter of that for colours.

    Args:
        image: (B, C, H, W) in [0, 1].
    """
    coarse = _through(image, 2)
    grey = coarse.mean(1, keepdim=True)
    return (grey + _through(coarse - grey, 4)).clamp(0, 1)


def rate_null_edits(images: Iterable[torch.Tensor]) -> list[float]:
    """Return how visible an edit that changes nothing is in windows of half the shorter side, a quarter apart.

    Args:
        images: Images (C, H, W) in [0, 1] or uint8.
    """
    rates = []
    for image in images:
        source = (image.float() if image.is_floating_point() else image.float() / 255)[None]
        side = max(1, min(source.shape[-2:]) // 2)
        cut = [each.unfold(2, side, max(1, side // 2)).unfold(3, side, max(1, side // 2)).flatten(0, 3)
               for each in map_visibility(source, make_null_edit(source))]  # fmt: skip
        rates += rate_visibility(*map(exact_mean, cut))
    return rates


def map_visibility(source: torch.Tensor, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the smoothed change and the source's noise, each (B, 1, H, W)."""
    change = box_blur(image - source).abs().amax(1, keepdim=True)
    return change, (source - box_blur(source)).abs().mean(1, keepdim=True)


def rate_visibility(change: torch.Tensor, noise: torch.Tensor) -> list[float]:
    """Return mean changes (B,) over mean noises (B,) and two grey levels."""
    return [round(value, _ROUND) for value in (change.double() / (noise.double() + _TWO_LEVELS)).tolist()]


def _through(image: torch.Tensor, factor: int) -> torch.Tensor:
    size = [max(1, side // factor) for side in image.shape[-2:]]
    return F.interpolate(F.interpolate(image, size, mode="area"), image.shape[-2:], mode="bilinear")
