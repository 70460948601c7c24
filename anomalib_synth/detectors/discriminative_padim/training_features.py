"""What the heads are trained on: features and residuals of training images, each computed once."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import torch

from anomalib_synth.detectors.discriminative_padim.cache import FeatureCache, digest_pixels
from anomalib_synth.detectors.discriminative_padim.cross_fitting import leave_out

if TYPE_CHECKING:
    from collections.abc import Callable

    from anomalib_synth.detectors.discriminative_padim.normals import TrainingNormals
    from anomalib_synth.detectors.discriminative_padim.torch_model import DiscriminativePadimModel


class Views(NamedTuple):
    """One scale's view of a batch: standardised features and whitened residuals, (B, C, h, w) each."""

    features: torch.Tensor
    residuals: torch.Tensor


class TrainingFeatures:
    """Computes and keeps what the heads see of an image.

    An image is computed by itself, so that its values do not depend on the batch it came in, and passes through half
    precision before its first use, so that kept and fresh values are the same.

    Args:
        model: The network, its Gaussians fitted before :meth:`views` is called.
        cache: Where the values are kept.
    """

    def __init__(self, model: DiscriminativePadimModel, cache: FeatureCache) -> None:
        self._model = model
        self._cache = cache

    @torch.no_grad()
    def raw(self, image: torch.Tensor, key: bytes) -> list[torch.Tensor]:
        """Return the raw features (C, h, w) of a (3, H, W) image with this digest, one tensor a scale."""

        def compute() -> list[torch.Tensor]:
            return [branch.raw_features(image[None])[0] for branch in self._model.branches]

        return self._kept(b"raw" + key, compute, image.device)

    @torch.no_grad()
    def views(
        self, image: torch.Tensor, source: torch.Tensor | None, normals: TrainingNormals
    ) -> tuple[int, list[Views]]:
        """Return which normal is behind an image, -1 for none of the run's, and what the heads see of it, one a scale.

        The residuals are by the Gaussians without that normal.

        Args:
            image: (3, H, W).
            source: (3, H, W), the image before its defect; None where nobody knows.
            normals: The normals that the Gaussians were fitted to.
        """
        key = digest_pixels(image)
        behind, place = key, -1
        if source is not None:
            behind = key if torch.equal(source, image) else digest_pixels(source)
            place = normals.find(source, behind)
        raw = self.raw(image, key)

        def compute() -> list[torch.Tensor]:
            if source is None or place < 0:
                return [self._whiten(level, each[None])[0] for level, each in enumerate(raw)]
            return self._leave_out(raw, self.raw(source, behind), len(normals))

        return place, self._pair(raw, self._kept(b"residual" + key + behind, compute, image.device))

    @torch.no_grad()
    def views_of_normal(self, key: bytes, count: int, device: torch.device) -> list[Views] | None:
        """Return what the heads see of one of ``count`` normals; None when its features are no longer kept."""
        raw = self._unpack(self._cache.get(b"raw" + key), device)
        return None if raw is None else self._pair(raw, self._leave_out(raw, raw, count))

    def _pair(self, raw: list[torch.Tensor], residuals: list[torch.Tensor]) -> list[Views]:
        return [
            Views(branch.standardise(each[None])[0], residual)
            for branch, each, residual in zip(self._model.branches, raw, residuals, strict=True)
        ]

    def _leave_out(self, raw: list[torch.Tensor], behind: list[torch.Tensor], count: int) -> list[torch.Tensor]:
        """Return the residuals of an image without the normal whose raw features are ``behind``."""
        found = []
        for level, (each, own) in enumerate(zip(raw, behind, strict=True)):
            whitened = self._whiten(level, torch.stack([each, own]))  # one pass over the matrices for both
            shrinkage = self._model.branches[level].gaussian.shrinkage
            found.append(leave_out(whitened[:1], whitened[1:], count=count, shrinkage=shrinkage)[0])
        return found

    def _whiten(self, level: int, raw: torch.Tensor) -> torch.Tensor:
        branch = self._model.branches[level]
        return branch.gaussian(branch.standardise(raw))

    def _kept(self, key: bytes, compute: Callable[[], list[torch.Tensor]], device: torch.device) -> list[torch.Tensor]:
        """Return what is kept under a key, or compute and keep it: one (C, h, w) float32 tensor a scale."""
        vector = self._cache.get(key)
        if vector is None:
            limit = torch.finfo(torch.float16).max
            vector = torch.cat([each.flatten() for each in compute()]).clamp(-limit, limit).half().cpu()
            self._cache.put(key, vector)
        return cast("list[torch.Tensor]", self._unpack(vector, device))

    def _unpack(self, vector: torch.Tensor | None, device: torch.device) -> list[torch.Tensor] | None:
        if vector is None:
            return None
        grids = [branch.grid for branch in self._model.branches]
        channels = self._model.features.channels
        parts = vector.to(device).float().split([channels * height * width for height, width in grids])
        return [part.view(channels, *grid) for part, grid in zip(parts, grids, strict=True)]
