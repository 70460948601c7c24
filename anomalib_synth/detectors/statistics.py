"""Running mean and deviation of feature channels."""

from __future__ import annotations

import torch


class ChannelStatistics:
    """Mean and standard deviation of the channels of feature maps, added up in float64 on the CPU.

    Args:
        channels: Number of channels.
    """

    def __init__(self, channels: int) -> None:
        self.sums = torch.zeros(3, channels, dtype=torch.float64)  # count, sum, sum of squares

    def update(self, features: torch.Tensor) -> None:
        """Add (B, C, h, w) features."""
        values = features.float()
        count = values.numel() / values.shape[1]
        means = torch.stack([values.mean((0, 2, 3)), values.square().mean((0, 2, 3))])
        self.sums[0] += count
        self.sums[1:] += count * means.cpu().double()

    def mean_and_deviation(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and deviation, each (C,) float32; a constant channel gets deviation 1."""
        mean = self.sums[1] / self.sums[0]
        deviation = (self.sums[2] / self.sums[0] - mean.square()).clamp_min(0).sqrt()
        deviation[deviation < 1e-6] = 1.0
        return mean.float(), deviation.float()
