"""Finds images without colour, removes colour, and smooths it."""

from __future__ import annotations

import torch
from kornia.color import rgb_to_grayscale

from anomalib_synth.functional.masks import box_blur


def find_grey(images: torch.Tensor) -> list[bool]:
    """Return for each image (B, C, H, W) in [0, 1] whether it has no colour, judged on one pixel in 64."""
    sparse = images[..., ::8, ::8].contiguous()
    return ((sparse.amax(1) - sparse.amin(1)).flatten(1).amax(1) <= 1 / 255).tolist()


def take_colour_out(target: torch.Tensor, grey: list[bool]) -> torch.Tensor:
    """Convert windows (N, C, h, w) to grey where the image is grey: a grey camera shows no red fibre."""
    if target.shape[1] == 1:
        return target
    rows = torch.tensor(grey, device=target.device).view(-1, 1, 1, 1)
    return torch.where(rows, rgb_to_grayscale(target), target)


def smooth_tint(source: torch.Tensor, changed: torch.Tensor, inside: torch.Tensor, *, radius: int) -> torch.Tensor:
    """Average the colour of a change over its surroundings in a mask, and keep its brightness as it is.

    Brightness is the mean of the channels, colour what a channel has beyond it. Tokens of a learned model are drawn
    side by side, each with a colour of its own; without this a grey stain is a mosaic of coloured dots.

    Args:
        source: (N, C, h, w), the image before.
        changed: (N, C, h, w), the image after.
        inside: (N, 1, h, w), 1 where it may change, else 0.
        radius: The average is over a square of 2 radius + 1 pixels, twice.

    Returns:
        (N, C, h, w), equal to ``changed`` outside the mask, and everywhere if there is one channel.
    """
    if source.shape[1] == 1:
        return changed
    change = changed - source
    grey = sum(change.unbind(1)).unsqueeze(1) * (1 / change.shape[1])
    tint, cover = (change - grey) * inside, inside
    for _ in range(2):
        tint, cover = box_blur(tint, radius), box_blur(cover, radius)
    return torch.where(inside > 0, source + grey + tint / cover.clamp_min(1e-6), changed)
