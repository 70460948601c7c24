"""RealNet's loss, one value for each sample of a batch."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional as F

SegmentationLoss = Literal["balanced", "focal", "cross_entropy"]
_FOCUS = 2.0  # gamma


def reconstruction_loss(reconstructed: list[torch.Tensor], target: list[torch.Tensor]) -> torch.Tensor:
    """Return (B,): the squared error of the features, averaged within each map and summed over the maps.

    Args:
        reconstructed: One (B, C_l, h_l, w_l) a layer.
        target: The features of the source images, of the same shapes.
    """
    errors = [(a - b).square().flatten(1).mean(1) for a, b in zip(reconstructed, target, strict=True)]
    return torch.stack(errors).sum(0)


def segmentation_loss(
    logits: torch.Tensor, mask: torch.Tensor, *, kind: SegmentationLoss = "cross_entropy"
) -> torch.Tensor:
    """Return (B,): how badly the logits separate the pixels of each image.

    ``cross_entropy``, the paper's, is the mean over the pixels: where a defect covers a two-hundredth of an image, so
    small is its share of the loss. The other two are ours and give the defect as much weight as the rest: ``balanced``
    is half the mean over the defect's pixels plus half the mean over the others; ``focal`` the same with each pixel's
    cross entropy multiplied by (1 - p)^2, p the probability of its class, so that what is right already counts little
    (after arXiv 1708.02002, equation 4, which has a fixed weight for each class). An image without a defect has the
    mean over its pixels.

    Args:
        logits: (B, 2, H, W).
        mask: (B, H, W) bool or {0, 1}.
        kind: Which of the three.
    """
    loss = F.cross_entropy(logits, mask.long(), reduction="none").flatten(1)
    if kind == "cross_entropy":
        return loss.mean(1)
    if kind == "focal":
        loss = (1 - (-loss).exp()).pow(_FOCUS) * loss
    defect = mask.flatten(1).to(loss.dtype)
    inside, outside = defect.sum(1), (1 - defect).sum(1)
    means = [(loss * part).sum(1) / count.clamp_min(1) for part, count in ((defect, inside), (1 - defect, outside))]
    classes = (inside > 0).to(loss.dtype) + (outside > 0).to(loss.dtype)
    return (means[0] + means[1]) / classes
