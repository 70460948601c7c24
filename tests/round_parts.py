"""Round parts on a plain background: for tests of what stays on the part."""

from __future__ import annotations

import torch

from tests.contract import render_normals

SIDE = 128


def disc(radius: float = 44.0) -> torch.Tensor:
    """(1, 1, SIDE, SIDE) bool, a round part that is not in the middle and not on the cells of any grid."""
    place = torch.arange(SIDE) + 0.5
    return ((place - 61.3) ** 2 + (place[:, None] - 67.8) ** 2 < radius**2)[None, None]


def parts(count: int, *, seed: int = 0) -> torch.Tensor:
    """Round textured parts on a bright, plain, slightly noisy background."""
    rng = torch.Generator().manual_seed(seed)
    background = 0.93 + 0.02 * torch.rand(count, 3, SIDE, SIDE, generator=rng)
    return torch.where(disc(), render_normals(count, 3, SIDE, SIDE, seed=seed) * 0.7, background)


BESIDE = ~disc(45.5)  # the pixels at the very edge are the part's and the background's
