"""The reference normals on which the scale of the score is measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from anomalib_synth.detectors.discriminative_padim.normality import distance
from anomalib_synth.detectors.discriminative_padim.normals import hold_out
from anomalib_synth.detectors.discriminative_padim.score import GroupScale, measure_scale
from anomalib_synth.detectors.discriminative_padim.training_features import HeadInputs, Request, TrainingFeatures
from anomalib_synth.generators.prepared import evenly_spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anomalib_synth.detectors.discriminative_padim.torch_model import DiscriminativePadimModel

_HELD_OUT = 0.2
_CHUNK = 8
_MOST_SCORED = 64  # normals at most that the scale of the score is measured on


class ReferenceNormals:
    """Measures the scale of a network's score: of the distances on all normals, of the heads on the held-out ones.

    Args:
        model: The network, with fitted Gaussians.
        features: Keeps the features of the normals.
        keys: Digests of the normals the Gaussians were fitted to.

    Attributes:
        held_out: (n,) bool, the normals that may train no head.

    Raises:
        ValueError: If the cache holds the features of none of them.
    """

    def __init__(self, model: DiscriminativePadimModel, features: TrainingFeatures, keys: Sequence[bytes]) -> None:
        self._model = model
        self._features = features
        self._keys = list(keys)
        self.held_out = hold_out(self._keys, share=_HELD_OUT)
        scored = self._views_of(evenly_spread(range(len(self._keys)), most_scored(model.size.tolist())))
        self._distances = measure_scale(
            [model.smooth_maps([distance(view.residuals) for view in views]) for views in scored]
        )
        held_out = evenly_spread(self.held_out.nonzero().flatten().tolist(), _MOST_SCORED)
        self._reference = [
            [HeadInputs(*(part.half() for part in view)) for view in views] for views in self._views_of(held_out)
        ]

    @torch.no_grad()
    def set_score(self, *, with_heads: bool, real_masks: int = 0) -> None:
        """Set the scale of the network's score, with the heads as they are now, or without heads.

        Args:
            with_heads: Whether the heads have learned anything.
            real_masks: Number of real defects with masks that the heads have learned.
        """
        self._model.set_score(self._distances, self._measure_heads() if with_heads else None, real_masks=real_masks)

    def _measure_heads(self) -> GroupScale:
        """Measure the heads' maps on the held-out normals."""
        branches = self._model.branches
        modes = [branch.training for branch in branches]
        branches.eval()
        maps = [
            self._model.smooth_maps(
                [
                    torch.cat(branch.heads(*(part.float() for part in view)), 1)
                    for branch, view in zip(branches, views, strict=True)
                ]
            )
            for views in self._reference
        ]
        for branch, mode in zip(branches, modes, strict=True):
            branch.train(mode)
        return measure_scale(maps)

    def _views_of(self, places: list[int]) -> list[list[HeadInputs]]:
        """Return the heads' inputs for the normals whose features are still kept, in chunks, one entry per scale."""
        kept = [self._keys[place] for place in places if self._features.has_raw(self._keys[place])]
        if not kept:
            msg = (
                "DiscriminativePadim scales its score by normals whose features it keeps, but the cache is too small "
                "for any. Raise `cache_memory` or `cache_disk`."
            )
            raise ValueError(msg)
        requests = [Request(None, key, None, key) for key in kept]
        groups = [requests[start : start + _CHUNK] for start in range(0, len(requests), _CHUNK)]
        return [self._features.views(group, count=len(self._keys)) for group in groups]


def most_scored(size: Sequence[int]) -> int:
    """Return how many normals of this (height, width) to measure on, fewer for large ones: all maps are in memory."""
    return max(16, min(_MOST_SCORED, _MOST_SCORED * 256**2 // (size[0] * size[1])))
