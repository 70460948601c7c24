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


def weigh_maps(
    mean: torch.Tensor, covariance: torch.Tensor, is_head: torch.Tensor, *, trust: float
) -> tuple[torch.Tensor, float]:
    """Return the weight of each map in the score, and what is added.

    Args:
        mean: (K,) means of the maps over the pixels of normals.
        covariance: (K, K) their covariances.
        is_head: (K,) bool: which maps are the heads'; the others are distances.
        trust: Weight of H next to N, in [0, 1]; 0 is normality alone.

    Returns:
        (K,) weights and the offset: score = weights · maps + offset.
    """
    deviation = covariance.diagonal().clamp_min(1e-12).sqrt()
    weights = torch.zeros_like(mean)
    for members, share in ((~is_head, 1.0), (is_head, trust)):
        if not bool(members.any()) or not share:
            continue
        mixture = torch.where(members, 1 / deviation, 0) / members.sum()
        spread = (mixture @ covariance @ mixture).clamp_min(1e-12).sqrt()
        weights += share * mixture / spread
    return weights, -float(weights @ mean)
