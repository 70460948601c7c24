"""Where windows are cut: the same places in every image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class WindowGrid:
    """Overlapping square windows at fixed places of images of one size.

    Images of another size are resized to it, so that windows of samples and of normals show the same extent. Windows
    lie half a side apart or closer: what is smaller than half a window is whole in one of them.

    Args:
        height: Height of the images in pixels.
        width: Width of the images in pixels.
        share: Side of a window as a share of the shorter side, in (0, 1].
    """

    height: int
    width: int
    share: float

    @property
    def side(self) -> int:
        """Side of a window in pixels."""
        return max(1, round(self.share * min(self.height, self.width)))

    @property
    def corners(self) -> list[tuple[int, int]]:
        """Top and left of every window."""
        return [(top, left) for top in self._starts(self.height) for left in self._starts(self.width)]

    def cut(self, image: torch.Tensor, corner: tuple[int, int], size: int) -> torch.Tensor:
        """Cut one window out of an image (C, H, W), resized to (3, size, size) float32."""
        top, left = corner
        window = self.fit(image)[:, top : top + self.side, left : left + self.side]
        return _resize(window, (size, size)).expand(3, -1, -1)

    def fit(self, image: torch.Tensor) -> torch.Tensor:
        """Return an image (C, H, W) at the grid's size."""
        return _resize(image, (self.height, self.width))

    def find(self, mask: torch.Tensor) -> tuple[int, int]:
        """Return the corner of the window that holds most of a mask; the one nearest to its middle among equals.

        Args:
            mask: (1, H, W), not empty, of any size.
        """
        inside = F.adaptive_max_pool2d((mask != 0).float()[None], (self.height, self.width))[0, 0].cpu()
        places = inside.nonzero().double()
        middle = places.mean(0)

        def rank(corner: tuple[int, int]) -> tuple[float, float]:
            offset = places - torch.tensor(corner, dtype=torch.float64)
            held = int(((offset >= 0) & (offset < self.side)).all(1).sum())
            away = torch.tensor(corner, dtype=torch.float64) + self.side / 2 - middle
            return -held, float((away * away).sum())

        return min(self.corners, key=rank)

    def _starts(self, length: int) -> list[int]:
        room = length - self.side
        steps = math.ceil(room / max(1, self.side // 2)) if room > 0 else 0
        return [round(step * room / steps) for step in range(steps + 1)] if steps else [0]


def _resize(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    view = image.float()[None].contiguous()  # the memory's order would change the last bits
    if view.shape[-2:] != size:
        view = F.interpolate(view, size, mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)
    return view[0]
