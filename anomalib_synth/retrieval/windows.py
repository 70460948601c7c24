"""Where windows are cut: as large as an edit asks for, in sizes of a few classes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch.nn import functional as F

SMALLEST = 16  # pixels
_STEP = math.sqrt(2)


class FilterWindow(NamedTuple):
    """A square window: its side, and its top and left corner, in pixels."""

    side: int
    top: int
    left: int


@dataclass(frozen=True, kw_only=True)
class WindowPlan:
    """The sizes and places of windows in images of one size.

    Images of another size are resized to it, so that windows of samples and of normals show the same extent. Sides fall
    from the image's shorter side by a factor of √2 to 16 pixels: nine classes for images of 256 pixels, eleven for 512.

    Args:
        height: Height of the images in pixels.
        width: Width of the images in pixels.
        context: Side of a window over the longer side of the edit's bounding box, >= 1; rounded up to the next class,
            so windows are up to √2 times as large.
        share: Side of every window as a share of the shorter side, in (0, 1]; None: by the edit.
    """

    height: int
    width: int
    context: float
    share: float | None = None

    @cached_property
    def sides(self) -> list[int]:
        """The classes, in pixels, rising."""
        shorter = min(self.height, self.width)
        if self.share is not None:
            return [max(1, round(self.share * shorter))]
        count = max(0, math.floor(math.log(max(1.0, shorter / SMALLEST), _STEP) + 1e-9))
        return sorted({round(shorter / _STEP**power) for power in range(count + 1)})

    def fit(self, image: torch.Tensor) -> torch.Tensor:
        """Return an image (C, H, W) at the plan's size."""
        return _resize(image, (self.height, self.width))

    def cut(self, image: torch.Tensor, window: FilterWindow, size: int) -> torch.Tensor:
        """Cut one window out of an image (C, H, W), resized to (3, size, size) float32."""
        side, top, left = window
        return _resize(self.fit(image)[:, top : top + side, left : left + side], (size, size)).expand(3, -1, -1)

    def find(self, mask: torch.Tensor) -> FilterWindow:
        """Return the window around a mask: the smallest class that is ``context`` times as long, its middle the box's.

        Where the mask is longer than the window can be, it holds as much of it as a window along that side can.

        Args:
            mask: (1, H, W), not empty, of any size.
        """
        inside = F.adaptive_max_pool2d((mask != 0).float()[None], (self.height, self.width))[0, 0].cpu()
        lines = [inside.sum(1), inside.sum(0)]  # mask pixels in each row, in each column
        boxes = [(int(line.nonzero()[0]), int(line.nonzero()[-1]) + 1) for line in lines]
        wanted = self.context * max(end - start for start, end in boxes)
        side = next((each for each in self.sides if each >= wanted), self.sides[-1])
        corner = [_place(line, box, side) for line, box in zip(lines, boxes, strict=True)]
        return FilterWindow(side, corner[0], corner[1])

    def scatter(self, side: int, number: int, limit: int) -> list[FilterWindow]:
        """Return windows of one class at random places of one image, the same for the same number.

        As many as lie half a side apart, at most ``limit``. Places differ between images, so all of them are covered by
        some, and a window of a sample, which lies anywhere, finds one near its own place.
        """
        rooms = [self.height - side, self.width - side]
        count = math.prod(1 + math.ceil(2 * room / side) for room in rooms)
        rng = torch.Generator().manual_seed(number * 2**16 + side)
        draws = [torch.randint(room + 1, (min(count, limit),), generator=rng).tolist() for room in rooms]
        return [FilterWindow(side, top, left) for top, left in zip(*draws, strict=True)]


def _place(line: torch.Tensor, box: tuple[int, int], side: int) -> int:
    """Return where a window starts along one axis: around the box, or where it holds most of it."""
    start, end = box
    if end - start > side:
        held = torch.cat([torch.zeros(1), line.cumsum(0)])
        start += int((held[start + side : end + 1] - held[start : end + 1 - side]).argmax())
        end = start + side
    return min(max((start + end - side) // 2, 0), len(line) - side)


def _resize(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    view = image.float()[None].contiguous()  # the memory's order would change the last bits
    if view.shape[-2:] != size:
        view = F.interpolate(view, size, mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)
    return view[0]
