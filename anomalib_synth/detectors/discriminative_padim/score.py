r"""Part 6, score: the sum of the normality map and the heads' map, each standardised.

All maps are resized to the image, smoothed, and standardised by their mean and deviation over the pixels of normals
that did not train them. N is the mean of the distances over the scales, H the mean of the heads' logits; each is
standardised again. The anomaly map is N + t H. The score of an image is not the largest value of that sum but

.. math:: s = \frac{\max N - \mu_N}{\sigma_N} + \frac{\max H - \mu_H}{\sigma_H},

where mean and deviation are those of the largest values in those normals. This decides how far the heads are trusted:
if they respond somewhere in good images, :math:`\mu_H` and :math:`\sigma_H` are large, and a defect must stand out
further. A deviation is poorly known from few normals, and fewer are held out for H than are available for N. So each
:math:`\sigma` is an upper 95 % confidence limit: :math:`\sqrt{(m - 1) / \chi^2_{0.05}(m - 1)}` times the sample
deviation over m normals. The fewer normals there are, the less the heads count. In the map, t is the quotient of these
factors for N and for H: .98 with 300 normals, .47 with 20. If the heads learned n real defects with masks, then t is
1 + n / 5 times as large: by then the heads know real defects better than a distance does. The score does not change: N
must still find defects of other kinds.

The model returns the inverse hyperbolic sine of map and score, which changes no ranking. Gross defects are a hundred
deviations away and faint ones five; anomalib scales scores to [0, 1] by the largest and smallest of the validation set
and clips those further than half that range below the threshold. On a linear scale, faint defects and good images would
all become 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from scipy.stats import chi2

_AS_GOOD_AS = 5  # this many real defects with masks double the weight of the heads; chosen on rendered parts

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class GroupScale:
    """How the maps of one group (the distances, or the heads) are combined into one map and one score.

    Args:
        weights: (K,) weight of each map.
        offset: Added to the weighted sum, so that the map has mean 0 (and deviation 1) over the pixels of normals.
        maximum_mean: Mean of the map's largest value in an image, over normals.
        maximum_deviation: Upper 95 % confidence limit of the deviation of that largest value.
        bound: Ratio of that limit to the sample deviation, >= 1.
    """

    weights: torch.Tensor
    offset: float
    maximum_mean: float
    maximum_deviation: float
    bound: float


def measure_scale(maps: Sequence[torch.Tensor]) -> GroupScale:
    """Measure how a group of maps is distributed on normals that did not train them.

    Args:
        maps: Chunks (n_i, K, H, W) of smoothed maps; with a single normal in all, the deviation is taken as 1.
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
    deviation = float(largest.std()) if len(largest) > 1 else 1.0  # one normal gives no deviation
    return GroupScale(
        weights, offset, maximum_mean=float(largest.mean()), maximum_deviation=max(deviation * bound, 1e-3), bound=bound
    )


def trust_in_heads(distances: GroupScale, heads: GroupScale, real_masks: int) -> float:
    """Return the weight t of the heads' map relative to the map of the distances.

    Args:
        distances: Scale of the distances.
        heads: Scale of the heads.
        real_masks: Number of real defects with masks that the heads learned.
    """
    return distances.bound / heads.bound * (1 + real_masks / _AS_GOOD_AS)


def deviation_bound(count: int) -> float:
    """Return the ratio of the upper 95 % confidence limit of a deviation to the sample value; 100 for one value.

    Example:
        >>> round(deviation_bound(7), 2), round(deviation_bound(64), 2)
        (1.92, 1.17)
    """
    return math.sqrt((count - 1) / float(chi2.ppf(0.05, count - 1))) if count > 1 else 100.0


class MapMoments:
    """Accumulates means and covariances of K maps over the pixels of normals.

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
        """Return the mean (K,) and the covariance (K, K), float64 on the CPU."""
        mean = self._sums / self._count
        return mean, self._products / self._count - mean[:, None] * mean[None]
