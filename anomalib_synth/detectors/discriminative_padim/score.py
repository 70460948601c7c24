r"""Part 6, score: the maps of normality and of the heads on one scale, added up.

All maps are brought to the image, smoothed, and standardised by their mean and deviation over the pixels of normals
that did not train them; N is the mean of the distances over the scales, H the mean of the heads; each is standardised
again. The anomaly map is N + t H. The score of an image is not the largest value of that sum but

.. math:: s = \frac{\max N - \mu_N}{\sigma_N} + \frac{\max H - \mu_H}{\sigma_H},

with mean and deviation of the largest values in those normals. That decides how far the heads are trusted: where they
light up somewhere in good images, :math:`\mu_H` and :math:`\sigma_H` are large and a defect must stand out further. Few
normals say little about a deviation, and fewer are held out for H than there are for N: so both deviations are upper
95 % confidence limits, :math:`s \sqrt{(m - 1) / \chi^2_{0.05}(m - 1)}` over m normals, and the fewer there are the less
the heads count. In the map t is the quotient of the two factors: .98 with 300 normals, .47 with 20. Where n real
defects with masks are among what the heads learned, it is 1 + n / 5 times that: what a real defect looks like they
then know better than a distance does. The score weighs both as before: other kinds than those n are for N to find.

What the model hands out is the inverse hyperbolic sine of both. It changes no ranking. But gross defects are a hundred
deviations away and faint ones five, and anomalib maps scores to [0, 1] by the largest and the least of the validation
set and clips what is further than half that range below the threshold: on a linear scale faint defects and good images
would all become 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from scipy.stats import chi2

_AS_GOOD_AS = 5  # real defects with masks that make the heads count twice; chosen on rendered parts

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class GroupScale:
    """How the maps of a group, the distances or the heads, become one map and one score.

    Args:
        weights: (K,) weight of each map.
        offset: What is added, so that the map has mean 0 and deviation 1 over the pixels of normals.
        maximum_mean: Mean of the map's largest value in an image, over normals.
        maximum_deviation: Upper 95 % confidence limit of its deviation.
        bound: What that limit is of the deviation itself, >= 1.
    """

    weights: torch.Tensor
    offset: float
    maximum_mean: float
    maximum_deviation: float
    bound: float


def measure_scale(maps: Sequence[torch.Tensor]) -> GroupScale:
    """Measure how a group of maps is distributed in normals that did not train them.

    Args:
        maps: Smoothed maps (n_i, K, H, W) of some normals at a time; two normals at least make a deviation.
    """
    moments = MapMoments(maps[0].shape[1])
    for each in maps:
        moments.update(each)
    mean, covariance = moments.mean_and_covariance()
    mixture = covariance.diagonal().clamp_min(1e-12).rsqrt() / len(mean)
    weights = mixture / (mixture @ covariance @ mixture).clamp_min(1e-12).sqrt()
    offset = -float(weights @ mean)
    weights = weights.float().to(maps[0].device)
    largest = torch.cat([torch.einsum("nkhw,k->nhw", each, weights).amax((1, 2)) + offset for each in maps])
    bound = deviation_bound(len(largest))
    deviation = float(largest.std()) if len(largest) > 1 else 1.0  # one normal has no deviation, and no bound
    return GroupScale(
        weights, offset, maximum_mean=float(largest.mean()), maximum_deviation=max(deviation * bound, 1e-3), bound=bound
    )


def trust_in_heads(distances: GroupScale, heads: GroupScale, real_masks: int) -> float:
    """Return the weight t of the heads' map beside that of the distances.

    Args:
        distances: Scale of the distances.
        heads: Scale of the heads.
        real_masks: Number of real defects with masks that the heads learned.
    """
    return distances.bound / heads.bound * (1 + real_masks / _AS_GOOD_AS)


def deviation_bound(count: int) -> float:
    """Return the factor from a deviation over some values to its upper 95 % confidence limit; 100 for one value.

    Example:
        >>> round(deviation_bound(7), 2), round(deviation_bound(64), 2)
        (1.92, 1.17)
    """
    return math.sqrt((count - 1) / float(chi2.ppf(0.05, count - 1))) if count > 1 else 100.0


class MapMoments:
    """Means and covariances of K maps over the pixels of normals.

    Args:
        maps: Number of maps K.
    """

    def __init__(self, maps: int) -> None:
        self._count = 0
        self._sums = torch.zeros(maps, dtype=torch.float64)
        self._products = torch.zeros(maps, maps, dtype=torch.float64)

    def update(self, maps: torch.Tensor) -> None:
        """Add (n, K, H, W) maps."""
        for image in maps.detach().flatten(2).cpu():
            values = image.double()
            self._count += values.shape[1]
            self._sums += values.sum(1)
            self._products += values @ values.T

    def mean_and_covariance(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (K,) and (K, K) in float64."""
        mean = self._sums / self._count
        return mean, self._products / self._count - mean[:, None] * mean[None]
