r"""Part 6, score: the maps of normality and of the heads on one scale, added up.

All maps are brought to the image, smoothed, and standardised by their mean and deviation over the pixels of normals
that did not train them; N is the mean of the distances over the scales, H the mean of the heads; each is standardised
again. The anomaly map is N + H. The score of an image is not the largest value of that sum but

.. math:: s = \frac{\max N - \mu_N}{\sigma_N} + \frac{\max H - \mu_H}{\sigma_H},

with mean and deviation of the largest values in those normals. That decides how far the heads are trusted: where they
light up somewhere in good images, :math:`\mu_H` and :math:`\sigma_H` are large and a defect must stand out further.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class GroupScale:
    """How the maps of a group, the distances or the heads, become one map and one score.

    Args:
        weights: (K,) weight of each map.
        offset: What is added, so that the map has mean 0 and deviation 1 over the pixels of normals.
        maximum_mean: Mean of the map's largest value in an image, over normals.
        maximum_deviation: Its deviation.
    """

    weights: torch.Tensor
    offset: float
    maximum_mean: float
    maximum_deviation: float


def measure_scale(maps: torch.Tensor) -> GroupScale:
    """Measure how a group of maps is distributed in normals.

    Args:
        maps: (n, K, H, W) smoothed maps of n >= 2 normals that did not train them.
    """
    mean = maps.mean((0, 2, 3), dtype=torch.float64)
    deviation = maps.double().sub(mean.view(1, -1, 1, 1)).square().mean((0, 2, 3)).sqrt().clamp_min(1e-6)
    mixture = 1 / deviation / len(mean)
    joined = torch.einsum("nkhw,k->nhw", maps.double() - mean.view(1, -1, 1, 1), mixture)
    spread = joined.square().mean().sqrt().clamp_min(1e-6)
    weights = mixture / spread
    largest = (joined / spread).amax((1, 2))
    return GroupScale(
        weights=weights.float(),
        offset=-float(weights @ mean),
        maximum_mean=float(largest.mean()),
        maximum_deviation=max(float(largest.std()), 1e-3),
    )
