"""Part 3, heads: what a defect looks like, learned from synthetic and real defects."""

from __future__ import annotations

from torch import nn


class Head(nn.Sequential):
    """Scores each cell by its 3 x 3 neighbourhood: 1 x 1, 3 x 3 (border replicated) and 1 x 1 convolutions.

    Args:
        channels: Channels of the input.
        width: Channels of the hidden layers.

    Shape:
        (B, ``channels``, h, w) → (B, 1, h, w), logits
    """

    def __init__(self, channels: int, width: int = 64) -> None:
        super().__init__(
            nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, padding_mode="replicate", bias=False),
            nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, 1, 1),
        )  # fmt: skip
