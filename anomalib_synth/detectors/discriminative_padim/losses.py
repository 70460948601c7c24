"""The loss of the heads on a batch: what each cell is, where that is known, and what it most likely is, where not."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from anomalib_synth.detectors.discriminative_padim.normality import distance
from anomalib_synth.detectors.discriminative_padim.targets import find_in_boxes, focal_losses

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anomalib_synth.detectors.discriminative_padim.targets import Targets
    from anomalib_synth.detectors.discriminative_padim.torch_model import ScaleBranch
    from anomalib_synth.detectors.discriminative_padim.training_features import Views

_MOST_DISTANT = 1.0  # deviations that count


class CellScale(NamedTuple):
    """Mean and deviation, over good images, of the largest distance of their cells at one scale."""

    mean: float
    deviation: float

    @classmethod
    def measure(cls, residuals: Sequence[torch.Tensor]) -> CellScale:
        """Measure it on the residuals (n_i, C, h, w) of some good images at a time."""
        largest = torch.cat([distance(each).amax((1, 2, 3)) for each in residuals])
        return cls(float(largest.mean()), max(float(largest.std(unbiased=False)), 1e-3))


def head_losses(
    branches: Sequence[ScaleBranch],
    views: Sequence[Views],
    targets: Sequence[Targets],
    scales: Sequence[CellScale],
    *,
    axes: list[int],
    looks: bool = True,
) -> torch.Tensor:
    """Return the losses of each image (B,), whose mean is the loss of the batch.

    Args:
        branches: The scales of the network.
        views: What the heads see, one a scale.
        targets: What is known of the cells, one a scale.
        scales: How far good images are from normal at most, one a scale; for images without a mask.
        axes: Axes along which the batch is mirrored.
        looks: Whether to look for the defect where there is no mask; without, those cells do not count.
    """
    total = torch.zeros(len(views[0].features), device=views[0].features.device)
    for branch, view, target, scale in zip(branches, views, targets, scales, strict=True):
        residuals, known = view.residuals.flip(axes), target.flip(axes)
        logits = branch.heads(view.features.flip(axes), residuals)
        positive, counted = known.split()
        if looks and bool(known.boxes.any()):
            suspicion = _suspect(known, residuals, logits, scale)
            positive = positive | find_in_boxes(known, suspicion)
            counted = counted | (known.is_boxed() & (suspicion <= 0))
        for each in logits:
            total = total + focal_losses(each, positive, counted | positive)
    return total


@torch.no_grad()
def _suspect(
    targets: Targets, residuals: torch.Tensor, logits: tuple[torch.Tensor, torch.Tensor], scale: CellScale
) -> torch.Tensor:
    """Return how conspicuous each cell is (B, 1, h, w): above 0 where the heads find it more so than good images.

    What their logit is above that of the good images of the batch. The distance from normal, in deviations of its
    largest value in good images, decides between such cells, by one at most: alone it points to wear and dirt as well,
    and may be any number of deviations away.
    """
    mean = torch.stack(logits).mean(0)
    good = ~((targets.cover > 0) | (targets.boxes > 0)).flatten(1).any(1)
    usual = mean[good].amax((1, 2, 3)).mean() if bool(good.any()) else mean.amax()
    distant = ((distance(residuals) - scale.mean) / scale.deviation).clamp(-_MOST_DISTANT, _MOST_DISTANT)
    return torch.where(mean > usual, mean - usual + (distant + _MOST_DISTANT) / 2, mean - usual)
