"""Finds images without colour, and removes colour."""

from __future__ import annotations

import torch
from kornia.color import rgb_to_grayscale


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
