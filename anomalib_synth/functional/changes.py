"""Finds where an edit changed a window more than the same editor does without an instruction."""

from __future__ import annotations

import torch
from scipy import ndimage

from anomalib_synth.functional.masks import box_blur

_LEAST = 2 / 255
_SMALLEST = 12  # pixels of a part of the mask


def find_change(
    change: torch.Tensor, null: torch.Tensor, *, quantiles: tuple[float, float] = (0.9, 0.99), radius: int = 1
) -> tuple[torch.Tensor, float]:
    """Return where a change exceeds that of a null edit, which is an edit without instruction.

    Both changes are smoothed. The thresholds are quantiles of the null edit's change, each at least two grey levels
    (2/255). The mask consists of the connected parts above the lower threshold that somewhere exceed 1.25 times the
    upper one. Gaps of one pixel are closed, holes are filled, and parts under 12 pixels are dropped.

    Args:
        change: (3, S, S) change by the edit.
        null: (3, S, S) change by the null edit.
        quantiles: Shares of the null edit's pixels below the lower and the upper threshold, in [0, 1].
        radius: Radius of the smoothing in pixels.

    Returns:
        Mask (1, 1, S, S) bool, and the lower threshold.
    """
    size, noise = (box_blur(part.abs().amax(0)[None, None], radius)[0, 0] for part in (change, null))
    ordered = noise.flatten().sort().values
    low, high = (float(ordered[min(len(ordered) - 1, int(share * len(ordered)))]) for share in quantiles)
    low, high = max(low, _LEAST), 1.25 * max(high, _LEAST)
    values = size.cpu().numpy()
    around = ndimage.generate_binary_structure(2, 2)
    found = values > low
    found = ndimage.binary_fill_holes(found | ndimage.binary_closing(found, around))
    labels, count = ndimage.label(found, around)
    numbers = range(count + 1)
    kept = (ndimage.sum_labels(found, labels, numbers) >= _SMALLEST) & (ndimage.maximum(values, labels, numbers) > high)
    return torch.from_numpy(kept[labels] & found)[None, None].to(change.device), low


def fade_border(side: int, closed: tuple[bool, bool, bool, bool], *, width: int = 6) -> torch.Tensor:
    """Return a weight (1, side, side) in [0, 1] that falls towards those sides of a window where the image continues.

    Args:
        side: Side of the window in pixels.
        closed: Whether the image continues beyond the top, bottom, left and right side.
        width: Pixels over which the weight falls.
    """
    place = torch.arange(side)
    ramp = ((place + 0.5) / width).clamp(max=1)
    one = torch.ones(side)
    top, bottom, left, right = (
        (part if is_closed else one) for part, is_closed in zip((ramp, ramp.flip(0)) * 2, closed, strict=True)
    )
    return ((top * bottom)[:, None] * (left * right)[None])[None]
