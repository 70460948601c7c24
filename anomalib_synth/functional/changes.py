"""Where an edit changed a window: more than the same editor changes without being asked to."""

from __future__ import annotations

import torch
from scipy import ndimage

from anomalib_synth.functional.masks import box_blur

_LEAST = 2 / 255
_SMALLEST = 12  # pixels of a part of the mask


def find_change(
    change: torch.Tensor, null: torch.Tensor, *, quantiles: tuple[float, float] = (0.9, 0.99), radius: int = 1
) -> tuple[torch.Tensor, float]:
    """Return where a change exceeds what a null edit, one without instruction, changes by itself.

    Both are smoothed. The mask is where the change is above the lower threshold, in those connected parts that
    somewhere reach a quarter more than the upper one; thresholds are quantiles of the null edit's change. Gaps of a
    pixel are closed, holes filled, and specks left out.

    Args:
        change: (3, S, S), of the edit.
        null: (3, S, S), of the null edit.
        quantiles: Shares of the null edit's pixels that are below the thresholds, in [0, 1]; the lower threshold is at
            least two grey levels.
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
    """Return a weight (1, side, side) that falls to the sides of a window beyond which the image goes on.

    Args:
        side: Side of the window in pixels.
        closed: For top, bottom, left and right, whether the image goes on there.
        width: Pixels over which it falls.
    """
    place = torch.arange(side)
    ramp = ((place + 0.5) / width).clamp(max=1)
    one = torch.ones(side)
    top, bottom, left, right = (
        (part if is_closed else one) for part, is_closed in zip((ramp, ramp.flip(0)) * 2, closed, strict=True)
    )
    return ((top * bottom)[:, None] * (left * right)[None])[None]
