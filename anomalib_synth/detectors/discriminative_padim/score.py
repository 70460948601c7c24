r"""Part 6, score: the maps of normality and heads on one scale, added up.

All maps are brought to the image, smoothed, and standardised by their mean and deviation over normals that trained
nothing; N is the mean of the distances over the scales, H the mean of the heads; each is standardised again, and
S = N + t H with the trust t. Every step is linear in the maps, so that a weight for each map and one offset say it all.
"""

from __future__ import annotations

import torch


class MapMoments:
    """Means and covariances of K maps over the pixels of normals.

    Args:
        maps: Number of maps K.
    """

    def __init__(self, maps: int) -> None:
        self.count = 0
        self.sums = torch.zeros(maps, dtype=torch.float64)
        self.products = torch.zeros(maps, maps, dtype=torch.float64)

    def update(self, maps: torch.Tensor) -> None:
        """Add (B, K, H, W) maps."""
        values = maps.detach().transpose(0, 1).flatten(1).double().cpu()
        self.count += values.shape[1]
        self.sums += values.sum(1)
        self.products += values @ values.T

    def mean_and_covariance(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (K,) and (K, K) in float64."""
        mean = self.sums / self.count
        return mean, self.products / self.count - mean[:, None] * mean[None]


def weigh_maps(moments: MapMoments) -> tuple[torch.Tensor, float]:
    """Return (K,) weights and an offset, which give the mean of the standardised maps, standardised again.

    Args:
        moments: Of the maps over the pixels of normals.

    Returns:
        Weights and offset: the score is ``weights · maps + offset``.
    """
    mean, covariance = moments.mean_and_covariance()
    mixture = covariance.diagonal().clamp_min(1e-12).rsqrt() / len(mean)
    weights = mixture / (mixture @ covariance @ mixture).clamp_min(1e-12).sqrt()
    return weights.float(), -float(weights @ mean)
