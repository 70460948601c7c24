"""RealNet's losses, one value per sample of the batch."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional as F

SegmentationLoss = Literal["balanced", "focal", "cross_entropy"]
_FOCUS = 2.0  # gamma


def reconstruction_loss(reconstructed: list[torch.Tensor], target: list[torch.Tensor]) -> torch.Tensor:
    """Return the squared error of the features, averaged within each map and summed over the maps, (B,).

    Args:
        reconstructed: One (B, C_l, h_l, w_l) per layer.
        target: The features of the source images, of the same shapes.
    """
    errors = [(a - b).square().flatten(1).mean(1) for a, b in zip(reconstructed, target, strict=True)]
    return torch.stack(errors).sum(0)


def segmentation_loss(
    logits: torch.Tensor, mask: torch.Tensor, *, kind: SegmentationLoss = "cross_entropy"
) -> torch.Tensor:
    """Return the segmentation loss of each image, (B,), >= 0.

    ``cross_entropy``, the paper's loss, is the mean over all pixels, so a defect that covers 0.5 % of the image has
    only about that share of the loss. The other two are ours and give the defect as much weight as the rest.
    ``balanced`` is half the mean over the defect's pixels plus half the mean over the others. ``focal`` is the same
    with each pixel's cross entropy multiplied by (1 - p)^2, where p is the predicted probability of the true class, so
    that pixels that are already right count little (after arXiv 1708.02002, equation 4, which uses a fixed weight per
    class instead of our balance). For an image without a defect, both take the mean over all its pixels.

    Args:
        logits: (B, 2, H, W).
        mask: (B, H, W) bool or {0, 1}.
        kind: ``balanced``, ``focal`` or ``cross_entropy``.
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
