"""The normals behind a training run: which images they are, and which of them are held out of the heads' training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from sklearn.cluster import KMeans
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence

_THUMBNAIL = 16
_ROUNDING = 0.006  # an 8-bit copy of a normalised image differs by less, averaged over a cell of the thumbnail
_CLUSTERS = 8
_MOST = 0.6  # of the normals, that a held-out cluster may bring the held-out ones to


class TrainingNormals:
    """The distinct normals of a run, found again by their content.

    A copy under another name is the same image. So is one that went through an 8-bit file and back, as the sources in a
    store do: those are found by a thumbnail.
    """

    def __init__(self) -> None:
        self._places: dict[bytes, int] = {}
        self._thumbnails: list[torch.Tensor] = []

    def __len__(self) -> int:
        """Return the number of distinct normals."""
        return len(self._places)

    @property
    def keys(self) -> list[bytes]:
        """The digests of the normals, in order."""
        return list(self._places)

    def add(self, image: torch.Tensor, key: bytes) -> bool:
        """Add a (3, H, W) image with the digest of its pixels; return whether it was new."""
        if key in self._places:
            return False
        self._places[key] = len(self._places)
        self._thumbnails.append(_thumbnail(image[None])[0])
        return True

    def find(self, image: torch.Tensor, key: bytes) -> int:
        """Return which normal a (3, H, W) image with this digest is, -1 for none of them."""
        place = self._places.get(key)
        if place is not None:
            return place
        gaps = (torch.stack(self._thumbnails) - _thumbnail(image[None])).abs().amax(1)
        nearest = int(gaps.argmin())
        return nearest if float(gaps[nearest]) <= _ROUNDING else -1


def _thumbnail(images: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) → (B, D) on the CPU."""
    return F.adaptive_avg_pool2d(images.detach().float().cpu(), _THUMBNAIL).flatten(1)


def hold_out_clusters(pooled: Sequence[torch.Tensor], *, share: float, seed: int = 0) -> torch.Tensor:
    """Choose whole clusters of normals that look alike, so that what is held out looks like nothing that is trained on.

    Held out at random, an image of a surface that the heads know says nothing about how they take one they do not know.

    Args:
        pooled: One (D,) vector a normal: mean and deviation of its features over the cells.
        share: The least share of the normals to hold out, in (0, 1).
        seed: Seed of the clusters and of their order.

    Returns:
        (n,) bool: at least one normal is held out, and at least two fifths are not.
    """
    vectors = torch.stack(list(pooled)).double()
    vectors = (vectors - vectors.mean(0)) / vectors.std(0).clamp_min(1e-6)
    count = len(vectors)
    held = torch.zeros(count, dtype=torch.bool)
    clusters = min(_CLUSTERS, count // 4)
    if clusters >= 2:
        found = torch.from_numpy(KMeans(clusters, n_init=4, random_state=seed).fit_predict(vectors.numpy()))
        for cluster in torch.randperm(clusters, generator=torch.Generator().manual_seed(seed)).tolist():
            joined = held | (found == cluster)
            if held.sum() < share * count and joined.sum() <= _MOST * count:
                held = joined
    if not bool(held.any()):  # too few for clusters, or one holds nearly all
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        held[order[: max(1, round(share * count))]] = True
    return held
