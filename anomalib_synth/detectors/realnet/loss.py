"""RealNet's loss, one value for each sample of a batch."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def reconstruction_loss(reconstructed: list[torch.Tensor], target: list[torch.Tensor]) -> torch.Tensor:
    """Return (B,): the squared error of the features, averaged within each map and summed over the maps.

    Args:
        reconstructed: One (B, C_l, h_l, w_l) a layer.
        target: The features of the source images, of the same shapes.
    """
    errors = [(a - b).square().flatten(1).mean(1) for a, b in zip(reconstructed, target, strict=True)]
    return torch.stack(errors).sum(0)


def segmentation_loss(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return (B,): the cross entropy of the pixels, averaged within each image.

    Args:
        logits: (B, 2, H, W).
        mask: (B, H, W) bool or {0, 1}.
    """
    return F.cross_entropy(logits, mask.long(), reduction="none").flatten(1).mean(1)
