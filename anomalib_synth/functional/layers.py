"""Input and output of every defect kernel: the window it sees, and the layer it paints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Window:
    """Windows of N images, all of one size, each around the place of a defect.

    A kernel computes on the window alone, so the cost depends on the defect's size, not on the image's.

    Shape:
        - ``image``: (N, C, h, w) float32 in [0, 1]
        - ``x``: (N, 1, 1, w), ``y``: (N, 1, h, 1): pixel coordinates relative to the defect's centre, ascending
        - ``foreground``: (N, 1, h, w) float32 in {0, 1}
        - ``background``: (N or 1, C, 1, 1) colour behind the part: typical, or of the window for families that need it
        - ``donor``: (N, C, h, w) the same or another place of another normal image, for families that need it
        - ``texture``: (N, C, h, w) a foreign texture, for families that need it
    """

    image: torch.Tensor
    x: torch.Tensor
    y: torch.Tensor
    foreground: torch.Tensor
    background: torch.Tensor
    donor: torch.Tensor | None = None
    texture: torch.Tensor | None = None

    def rotated(self, cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the coordinates along and across a direction, each (N, 1, h, w), in pixels."""
        return self.x * cos + self.y * sin, self.y * cos - self.x * sin


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What a kernel paints: the target at full strength, and its coverage of each pixel.

    Shape:
        - ``target``: (N, C, h, w) float32; values outside [0, 1] are clipped on compositing
        - ``alpha``: (N, 1, h, w) float32 in [0, 1], 0 outside the defect, soft where a real defect has a soft edge
    """

    target: torch.Tensor
    alpha: torch.Tensor
