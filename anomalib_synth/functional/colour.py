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


def smooth_tint(images: torch.Tensor, inside: torch.Tensor, *, radius: int) -> torch.Tensor:
    """Average the colour of images over their surroundings in a mask, and keep their brightness as it is.

    Brightness is the mean of the channels, colour what a channel has beyond it. Tokens of a learned model are drawn
    side by side, each with a colour of its own; without this a grey stain is a mosaic of coloured dots.

    Args:
        images: (N, C, h, w).
        inside: (N, 1, h, w), 1 in the mask, else 0.
        radius: The average is over a square of 2 radius + 1 pixels, twice; what is outside the mask has no part in it.

    Returns:
        (N, C, h, w), the same outside the mask, and everywhere if there is one channel.
    """
    if images.shape[1] == 1:
        return images
    grey = sum(images.unbind(1)).unsqueeze(1) * (1 / images.shape[1])
    tint, cover = (images - grey) * inside, inside
    for _ in range(2):
        tint, cover = box_blur(tint, radius), box_blur(cover, radius)
    return torch.where(inside > 0, grey + tint / cover.clamp_min(1e-6), images)
