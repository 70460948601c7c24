"""The loss of the heads on a batch, with known targets where there are masks and guessed ones within boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from anomalib_synth.detectors.discriminative_padim.targets import focal_losses, guess_in_boxes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anomalib_synth.detectors.discriminative_padim.targets import Targets
    from anomalib_synth.detectors.discriminative_padim.torch_model import ScaleBranch
    from anomalib_synth.detectors.discriminative_padim.training_features import HeadInputs


def head_losses(
    branches: Sequence[ScaleBranch],
    views: Sequence[HeadInputs],
    targets: Sequence[Targets],
    *,
    axes: list[int],
    looks: bool = True,
) -> torch.Tensor:
    """Return the loss of each image, (B,), summed over scales and heads; the mean is the loss of the batch.

    Args:
        branches: The network's branches, one per scale.
        views: Inputs of the heads, one entry per scale.
        targets: Targets of the cells, one entry per scale.
        axes: Axes of the tensors along which the batch is mirrored.
        looks: Whether to guess where the defect is within a box; if not, the cells of boxes do not count.
    """
    total = torch.zeros(len(views[0].features), device=views[0].features.device)
    for branch, view, target in zip(branches, views, targets, strict=True):
        known = target.flip(axes)
        logits = branch.heads(view.features.flip(axes), view.residuals.flip(axes))
        positive, counted = known.split()
        if looks and bool(known.boxes.any()):
            defect, good = guess_in_boxes(known, _suspect(known, logits))
            positive, counted = positive | defect, counted | good
        for each in logits:
            total = total + focal_losses(each, positive, counted | positive)
    return total


@torch.no_grad()
def _suspect(targets: Targets, logits: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Return how far the heads' mean logit of each cell exceeds the mean largest one of good images, (B, 1, h, w)."""
    mean = torch.stack(logits).mean(0)
    good = ~((targets.cover > 0) | (targets.boxes > 0)).flatten(1).any(1)
    return mean - (mean[good].amax((1, 2, 3)).mean() if bool(good.any()) else mean.amax())
