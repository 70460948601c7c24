"""The last step of a detector's loss, where sample weights enter."""

from __future__ import annotations

import torch
from torch import nn


class MeanOverSamples(nn.Module):
    """Reduces per-sample losses (B,) to a scalar; ``QualityWeightingCallback`` puts a weighted mean in its place."""

    def forward(self, losses: torch.Tensor) -> torch.Tensor:
        """Return the mean."""
        return losses.mean()
