"""A map of how far an image is from good images: the Gaussians alone, fitted in seconds without a trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from anomalib_synth.detectors.backbone import FrozenBackbone
from anomalib_synth.detectors.discriminative_padim.features import GridFeatures
from anomalib_synth.detectors.discriminative_padim.normality import PositionGaussian, PositionMoments, distance
from anomalib_synth.detectors.discriminative_padim.scales import make_upsampling
from anomalib_synth.detectors.statistics import ChannelStatistics
from anomalib_synth.images import to_tensor
from anomalib_synth.models.bundled_backbone import BACKBONE_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_LAYERS = ("blocks.1", "blocks.2", "blocks.4")
_CHANNELS = 200
_SMOOTHING = 0.016  # deviation of the blur as a share of the side, as in DiscriminativePadim
_LEAST = 3
_HELD_OUT = 5  # every fifth image is held out


class NormalityMap:
    """Maps how far each pixel of an image is from good images, in [0, 1].

    A fifth of the good images is held out, and the largest distance in any of them is the unit: a distance of d units
    maps to d / (1 + d), so 0.5 is what a good image reaches at most.

    Args:
        side: Height and width in pixels to which every image is resized, whatever its shape; a multiple of 32.

    Example:
        >>> NormalityMap(side=64).is_fitted
        False
    """

    def __init__(self, *, side: int = 256) -> None:
        self.side = side
        self.limit = 0.0
        self._features = GridFeatures(FrozenBackbone(BACKBONE_NAME, _LAYERS), channels=_CHANNELS).eval()
        grid = self._features.grid_of((side, side))
        self._upsample = make_upsampling(grid, (side, side), _SMOOTHING)
        self._gaussian = PositionGaussian(grid[0] * grid[1], self._features.channels)

    @property
    def is_fitted(self) -> bool:
        """Whether the map has been fitted."""
        return self.limit > 0

    @torch.no_grad()
    def fit(self, normals: Iterable[np.ndarray]) -> NormalityMap:
        """Fit the map to good images.

        Args:
            normals: The images, (H, W, 3) uint8 each.

        Raises:
            ValueError: If there are fewer than three different images.
            OSError: If the backbone's weights cannot be read.
        """
        self._features.backbone.load_weights()
        cells: list[torch.Tensor] = []
        seen: set[bytes] = set()
        for image in normals:
            small = self._shrink(image)
            key = small.numpy().tobytes()
            if key not in seen:
                seen.add(key)
                cells.append(self._features(small))
        if len(cells) < _LEAST:
            msg = f"`normals` must hold at least {_LEAST} different good images, got {len(cells)}. Add some."
            raise ValueError(msg)
        self._fit([each for place, each in enumerate(cells) if place % _HELD_OUT])
        self.limit = max(float(self._measure(each).max()) for each in cells[::_HELD_OUT])
        return self

    @torch.no_grad()
    def propose(self, image: np.ndarray) -> np.ndarray:
        """Return the distance map of an image (H, W, 3) uint8: (H, W) float32 in [0, 1].

        Raises:
            RuntimeError: If the map is not fitted.
        """
        if not self.is_fitted:
            msg = "The map is not fitted. Call `fit` with good images first."
            raise RuntimeError(msg)
        found = self._measure(self._features(self._shrink(image)))
        levels = found / (found + self.limit)
        return F.interpolate(levels, image.shape[:2], mode="bilinear", align_corners=False)[0, 0].numpy()

    def _fit(self, cells: Sequence[torch.Tensor]) -> None:
        """Set the Gaussians from the features (1, C, h, w) of images."""
        moments, statistics = PositionMoments(), ChannelStatistics(self._features.channels)
        for each in cells:
            moments.update(each)
            statistics.update(each)
        self._mean, self._deviation = (value[:, None, None] for value in statistics.mean_and_deviation())
        self._gaussian.fit(*moments.standardised(*(value.flatten() for value in (self._mean, self._deviation))))

    def _measure(self, features: torch.Tensor) -> torch.Tensor:
        """Return the smoothed distances (1, 1, side, side) of raw features (1, C, h, w)."""
        return self._upsample(distance(self._gaussian((features - self._mean) / self._deviation)))

    def _shrink(self, image: np.ndarray) -> torch.Tensor:
        """Return an image resized and normalised for the backbone, (1, 3, side, side)."""
        small = F.interpolate(to_tensor(image)[None], (self.side, self.side), mode="bilinear", antialias=True)
        return (small - 0.5) / 0.5
