"""Colour, and images that have none."""

from __future__ import annotations

import torch
from kornia.color import rgb_to_grayscale


def find_grey(images: torch.Tensor) -> list[bool]:
    """Return for each image (B, C, H, W) whether it has no colour; judged on every 64th pixel."""
    sparse = images[..., ::8, ::8].contiguous()
    return ((sparse.amax(1) - sparse.amin(1)).flatten(1).amax(1) <= 1 / 255).tolist()


def take_colour_out(target: torch.Tensor, grey: list[bool]) -> torch.Tensor:
    """Take the colour out of those windows (N, C, h, w) that are grey: a grey camera sees no red fibre."""
    if target.shape[1] == 1:
        return target
    rows = torch.tensor(grey, device=target.device).view(-1, 1, 1, 1)
    return torch.where(rows, rgb_to_grayscale(target), target)
