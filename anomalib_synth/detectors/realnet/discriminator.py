"""Reconstruction-residual selection (RRS) and the discriminator that turns residuals into an anomaly map."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class ResidualSelection(nn.Module):
    """Keeps, for each image, the residual channels that respond most: by their largest value and by their mean.

    Channels are ranked by their batch-normalised residuals (no learned parameters). The residuals themselves are passed
    on, in order of rank, so the discriminator sees the strongest response first, whichever channel gave it (arXiv
    2403.05897, section 3.4).

    Args:
        channels: Channels of the residual.
        by_maximum: How many to keep by largest value.
        by_mean: How many to keep by mean value.

    Shape:
        (B, ``channels``, h, w) → (B, ``by_maximum + by_mean``, h, w)

    Raises:
        ValueError: If a number is not in [1, ``channels``].
    """

    def __init__(self, channels: int, *, by_maximum: int, by_mean: int) -> None:
        super().__init__()
        for count in (by_maximum, by_mean):
            if not 0 < count <= channels:
                msg = f"`residual_dims` must be two numbers in [1, {channels}], got {(by_maximum, by_mean)}."
                raise ValueError(msg)
        self.by_maximum = by_maximum
        self.by_mean = by_mean
        self.norm = nn.BatchNorm2d(channels, affine=False)

    def forward(self, residual: torch.Tensor) -> torch.Tensor:
        """Return the kept residuals."""
        with torch.no_grad():
            normalised = self.norm(residual)
            strongest = normalised.amax((2, 3)).topk(self.by_maximum, 1).indices
            broadest = normalised.mean((2, 3)).topk(self.by_mean, 1).indices
            index = torch.cat([strongest, broadest], 1)[:, :, None, None]
        return residual.gather(1, index.expand(-1, -1, *residual.shape[-2:]))


class Discriminator(nn.Module):
    """Maps selected residuals to logits of "normal" and "anomalous".

    The authors' discriminator, except that its last two hidden layers have the same width and the convolutions after
    the up-sampling pad by repeating the border.

    Args:
        channels: Channels of the input.
        width: Channels of the first layer; the next two have a quarter and a sixteenth as many, at least 4.
        blocks: Residual blocks before the first layer.

    Shape:
        (B, ``channels``, h, w) → (B, 2, 2h, 2w)
    """

    def __init__(self, channels: int, *, width: int, blocks: int) -> None:
        super().__init__()
        middle, last = max(width // 4, 4), max(width // 16, 4)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(),
                nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                nn.ReLU(),
                nn.Conv2d(channels, channels, 1, bias=False),
            )
            for _ in range(blocks)
        )
        self.coarse = nn.Sequential(
            nn.ReLU(), nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, middle, 3, padding=1), nn.ReLU(), nn.Conv2d(middle, last, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        # zero padding around the map looked like an edge: a corner lit up in every image, brighter than most defects
        first, second = (nn.Conv2d(last, out, 3, padding=1, padding_mode="replicate") for out in (last, 2))
        self.fine = nn.Sequential(first, nn.ReLU(), second)

    def forward(self, residual: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        for block in self.blocks:
            residual = residual + block(residual)
        hidden = self.coarse(residual)
        size = (2 * hidden.shape[-2], 2 * hidden.shape[-1])
        return self.fine(F.interpolate(hidden, size, mode="bilinear", align_corners=True))
