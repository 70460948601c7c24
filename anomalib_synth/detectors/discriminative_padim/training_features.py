"""Inputs of the heads in training: features and residuals of images, each computed once."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

import torch

from anomalib_synth.detectors.discriminative_padim.cache import RAW
from anomalib_synth.detectors.discriminative_padim.cross_fitting import leave_out

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from anomalib_synth.detectors.discriminative_padim.cache import FeatureCache
    from anomalib_synth.detectors.discriminative_padim.torch_model import DiscriminativePadimModel

_MICRO_BATCH = 8  # images whose residuals are computed together, each with the normal behind it


class HeadInputs(NamedTuple):
    """Inputs of one scale's heads: standardised features and whitened residuals, (B, C, h, w) each."""

    features: torch.Tensor
    residuals: torch.Tensor


class Request(NamedTuple):
    """An image whose head inputs are wanted, with the normal behind it.

    Args:
        image: The image (3, H, W); None if the cache is known to hold its raw features.
        key: Digest of the image's pixels.
        source: The normal behind the image (3, H, W), if the Gaussians were fitted to it; None if not, or if the cache
            is known to hold its raw features.
        behind: Digest of that normal's pixels; None if the Gaussians were not fitted to it.
    """

    image: torch.Tensor | None
    key: bytes
    source: torch.Tensor | None
    behind: bytes | None


class TrainingFeatures:
    """Computes and keeps the heads' inputs of images.

    Values do not depend on the batch an image came in: features are computed one image at a time, residuals in padded
    micro-batches of one size. All values are rounded to half precision before their first use, so cached and fresh ones
    are equal.

    Args:
        model: The network; its Gaussians must be fitted before :meth:`views` is called.
        cache: Where the values are kept.
    """

    def __init__(self, model: DiscriminativePadimModel, cache: FeatureCache) -> None:
        self._model = model
        self._cache = cache

    @torch.no_grad()
    def raw(self, image: torch.Tensor, key: bytes) -> list[torch.Tensor]:
        """Return the raw features (C, h, w) of a (3, H, W) image with this digest, one tensor per scale."""
        vector = self._cache.get(RAW + key)
        if vector is None:
            vector = self._keep(RAW + key, [branch.raw_features(image[None])[0] for branch in self._model.branches])
        return self._unpack(vector)

    def has_raw(self, key: bytes) -> bool:
        """Return whether the cache holds the raw features of an image."""
        return RAW + key in self._cache

    @torch.no_grad()
    def views(self, requests: Sequence[Request], *, count: int, ahead: Iterable[Request] = ()) -> list[HeadInputs]:
        """Return the heads' inputs for images, stacked, one entry per scale.

        If the Gaussians were fitted to the normal behind an image, its residuals are computed without that normal.

        Args:
            requests: The images.
            count: Number of normals the Gaussians were fitted to.
            ahead: Images that are wanted later. What a micro-batch would be padded with is computed of them.
        """
        raw = {each.key: self._raw_of(each.image, each.key) for each in requests}
        vectors = {_residual_key(each): self._cache.get(_residual_key(each)) for each in requests}
        missing = {_residual_key(each): each for each in requests if vectors[_residual_key(each)] is None}
        if -len(missing) % _MICRO_BATCH:
            missing |= self._choose(ahead, -len(missing) % _MICRO_BATCH, missing)
        listed = list(missing.items())
        for start in range(0, len(listed), _MICRO_BATCH):
            chosen = [each for _, each in listed[start : start + _MICRO_BATCH]]
            own = [raw[each.key] if each.key in raw else self._raw_of(each.image, each.key) for each in chosen]
            behind = [
                features if each.behind in {None, each.key} else self._raw_of(each.source, each.behind)
                for features, each in zip(own, chosen, strict=True)
            ]
            residuals = self._residuals(own, behind)
            for row, each in enumerate(chosen):
                both = [(scale[0][row], scale[1][row]) for scale in residuals]
                vectors[_residual_key(each)] = self._keep(_residual_key(each), self._leave_out(both, each, count))
        rows = [self._unpack(cast("torch.Tensor", vectors[_residual_key(each)])) for each in requests]
        return [
            HeadInputs(branch.standardise(torch.stack(own)), torch.stack(residual))
            for branch, own, residual in zip(
                self._model.branches,
                zip(*(raw[each.key] for each in requests), strict=True),
                zip(*rows, strict=True),
                strict=True,
            )
        ]

    def _choose(self, ahead: Iterable[Request], most: int, known: Mapping[bytes, Request]) -> dict[bytes, Request]:
        """Return the first images whose residuals are not kept and could be, by the keys of those."""
        found: dict[bytes, Request] = {}
        for each in ahead:
            key = _residual_key(each)
            if len(found) == most or not self._cache.has_room:
                break
            if key not in known and key not in self._cache:
                found[key] = each
        return found

    def _raw_of(self, image: torch.Tensor | None, key: bytes | None) -> list[torch.Tensor]:
        return self.raw(cast("torch.Tensor", image), cast("bytes", key))

    def _residuals(
        self, raw: list[list[torch.Tensor]], behind: list[list[torch.Tensor]]
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return residuals of images and of the normals behind them, under the Gaussians of all, one pair per scale."""
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
        """Return an image's residuals under the Gaussians without its own normal, one (C, h, w) per scale."""
        if request.behind is None:
            return [whitened for whitened, _ in residuals]
        return [
            leave_out(whitened[None], own[None], count=count, shrinkage=branch.gaussian.shrinkage)[0]
            for branch, (whitened, own) in zip(self._model.branches, residuals, strict=True)
        ]

    def _keep(self, key: bytes, parts: list[torch.Tensor]) -> torch.Tensor:
        """Join (C, h, w) tensors, one per scale, into one float16 vector, keep it and return it."""
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
