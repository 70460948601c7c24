"""Part 3, heads: what a defect looks like, learned from synthetic and real defects."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

_LEAST_COVER = 0.25  # of a cell, from which it is positive


class Head(nn.Sequential):
    """Scores each cell of the grid by its 3 x 3 neighbourhood: 1 x 1, 3 x 3 (the border repeated), 1 x 1 convolution.

    Args:
        channels: Channels of the input.
        width: Channels in between.

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


def cover_cells(mask: torch.Tensor, grid: tuple[int, int] | torch.Size) -> torch.Tensor:
    """Return the share of each cell that a mask covers: (B, H, W) bool → (B, 1, h, w) in [0, 1]."""
    return F.adaptive_avg_pool2d(mask.float()[:, None], tuple(grid))


def focal_losses(logits: torch.Tensor, cover: torch.Tensor, *, gamma: float = 2.0) -> torch.Tensor:
    r"""Return (B,), whose mean is the focal loss of the batch, summed and divided by the number of positive cells + 1.

    A cell is positive from 25 % cover; between 0 and 25 % it is ignored. Focal loss: arXiv 1708.02002, equation 4,
    without its alpha: :math:`-(1 - p_t)^\gamma \log p_t`.

    Args:
        logits: (B, 1, h, w).
        cover: (B, 1, h, w), share of each cell that is defective.
        gamma: Exponent that takes weight from what is easy.
    """
    positive = cover >= _LEAST_COVER
    counted = positive | (cover == 0)
    missed = F.binary_cross_entropy_with_logits(logits, positive.to(logits.dtype), reduction="none")
    losses = (1 - torch.exp(-missed)).pow(gamma) * missed * counted
    return losses.flatten(1).sum(1) * len(logits) / (positive.sum() + 1)
