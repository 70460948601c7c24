"""The colour behind the part, for defects through which it shows."""

from __future__ import annotations

import torch

from anomalib_synth.functional.masks import count_pixels, exact_mean

_ENOUGH = 16  # pixels that tell a colour


def mean_colour(images: torch.Tensor, where: torch.Tensor | None = None) -> torch.Tensor:
    """Return the mean colour (N, C, 1, 1) of images (N, C, h, w) where a mask (N, 1, h, w) is 1; black where nowhere.

    Args:
        images: The images.
        where: The mask, of zeros and ones; None averages over everything.
    """
    weight = None if where is None else where[:, 0]
    return torch.stack([exact_mean(plane, weight) for plane in images.unbind(1)], dim=1)[:, :, None, None]


def colour_beside(
    windows: torch.Tensor, part: torch.Tensor, beside: torch.Tensor, typical: torch.Tensor
) -> torch.Tensor:
    """Return the colour of the background in each window, as it is lit there.

    What lies beside the part counts as background if its colour is nearer to the typical background than to the part:
    where a caller's region stands for the part, the part itself goes on beside it.

    Args:
        windows: (N, C, h, w), cut out of images.
        part: (N, 1, h, w) in {0, 1}, where the part is.
        beside: (N, 1, h, w) in {0, 1}, what shows nothing of the part.
        typical: (1, C, 1, 1), the product's typical background.

    Returns:
        (N, C, 1, 1); the typical colour for a window that shows too little of the background.
    """
    local = mean_colour(windows, beside)
    shown = (count_pixels(beside) >= _ENOUGH).view(-1, 1, 1, 1)
    near, far = ((local - each).abs().amax(1, keepdim=True) for each in (typical, mean_colour(windows, part)))
    return torch.where(shown & (near < far), local, typical)
