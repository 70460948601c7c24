"""What the heads are trained on: features and residuals of training images, each computed once."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import torch

from anomalib_synth.detectors.discriminative_padim.cache import RAW
from anomalib_synth.detectors.discriminative_padim.cross_fitting import leave_out

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anomalib_synth.detectors.discriminative_padim.cache import FeatureCache
    from anomalib_synth.detectors.discriminative_padim.torch_model import DiscriminativePadimModel

_MICRO_BATCH = 8  # images whose residuals are computed at once, each with the normal behind it


class HeadInputs(NamedTuple):
    """One scale's view of a batch: standardised features and whitened residuals, (B, C, h, w) each."""

    features: torch.Tensor
    residuals: torch.Tensor


class Request(NamedTuple):
    """An image whose views are wanted: (3, H, W), its digest, and the normal behind it.

    Args:
        image: The image; None where its raw features are known to be kept.
        key: Digest of its pixels.
        source: The normal, where it is one of those the Gaussians were fitted to, else None; as ``image``.
        behind: Digest of the normal, else None.
    """

    image: torch.Tensor | None
    key: bytes
    source: torch.Tensor | None
    behind: bytes | None


class TrainingFeatures:
    """Computes and keeps what the heads see of an image.

    Values do not depend on the batch an image came in: features are computed an image at a time, residuals in
    micro-batches of one size, padded. They pass through half precision before their first use, so that kept and fresh
    ones are the same.

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
        vector = self._cache.get(RAW + key)
        if vector is None:
            vector = self._keep(RAW + key, [branch.raw_features(image[None])[0] for branch in self._model.branches])
        return self._unpack(vector)

    def has_raw(self, key: bytes) -> bool:
        """Return whether the raw features of an image are kept."""
        return RAW + key in self._cache

    @torch.no_grad()
    def views(self, requests: Sequence[Request], *, count: int) -> list[HeadInputs]:
        """Return what the heads see of images, stacked, one pair a scale.

        The residuals are by the Gaussians without the normal behind each image, where that is one of theirs.

        Args:
            requests: The images.
            count: Number of normals the Gaussians were fitted to.
        """
        raw = [self._raw_of(request.image, request.key) for request in requests]
        vectors = {place: self._cache.get(_residual_key(each)) for place, each in enumerate(requests)}
        missing = [place for place, vector in vectors.items() if vector is None]
        for start in range(0, len(missing), _MICRO_BATCH):
            chosen = missing[start : start + _MICRO_BATCH]
            behind = [
                raw[place] if each.behind in {None, each.key} else self._raw_of(each.source, each.behind)
                for place, each in ((place, requests[place]) for place in chosen)
            ]
            residuals = self._residuals([raw[place] for place in chosen], behind)
            for row, place in enumerate(chosen):
                both = [(scale[0][row], scale[1][row]) for scale in residuals]
                vectors[place] = self._keep(
                    _residual_key(requests[place]), self._leave_out(both, requests[place], count)
                )
        rows = [self._unpack(cast("torch.Tensor", vectors[place])) for place in range(len(requests))]
        return [
            HeadInputs(branch.standardise(torch.stack(own)), torch.stack(residual))
            for branch, own, residual in zip(
                self._model.branches, zip(*raw, strict=True), zip(*rows, strict=True), strict=True
            )
        ]

    def _raw_of(self, image: torch.Tensor | None, key: bytes | None) -> list[torch.Tensor]:
        return self.raw(cast("torch.Tensor", image), cast("bytes", key))

    def _residuals(
        self, raw: list[list[torch.Tensor]], behind: list[list[torch.Tensor]]
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return the residuals of images and of the normals behind them by the Gaussians of all, two a scale."""
        found = []
        for level, branch in enumerate(self._model.branches):
            rows = torch.stack([each[level] for each in [*raw, *behind]])
            padding = rows.new_zeros(2 * _MICRO_BATCH - len(rows), *rows.shape[1:])
            whitened = branch.gaussian(branch.standardise(torch.cat([rows, padding])))
            found.append((whitened[: len(raw)], whitened[len(raw) : len(rows)]))
        return found

    def _leave_out(
        self, residuals: list[tuple[torch.Tensor, torch.Tensor]], request: Request, count: int
    ) -> list[torch.Tensor]:
        """Return an image's residuals by the Gaussians without its own normal, one (C, h, w) a scale."""
        if request.behind is None:
            return [whitened for whitened, _ in residuals]
        return [
            leave_out(whitened[None], own[None], count=count, shrinkage=branch.gaussian.shrinkage)[0]
            for branch, (whitened, own) in zip(self._model.branches, residuals, strict=True)
        ]

    def _keep(self, key: bytes, parts: list[torch.Tensor]) -> torch.Tensor:
        """Keep (C, h, w) tensors, one a scale, as one vector in half precision, and return it."""
        limit = torch.finfo(torch.float16).max
        vector = torch.cat([each.flatten() for each in parts]).clamp(-limit, limit).half().cpu()
        self._cache.put(key, vector)
        return vector

    def _unpack(self, vector: torch.Tensor) -> list[torch.Tensor]:
        grids = [branch.grid for branch in self._model.branches]
        channels = self._model.features.channels
        device = self._model.size.device
        parts = vector.to(device).float().split([channels * height * width for height, width in grids])
        return [part.view(channels, *grid) for part, grid in zip(parts, grids, strict=True)]


def _residual_key(request: Request) -> bytes:
    return b"residual" + request.key + (request.behind or b"")
