"""The normals behind a training run: which images they are, and which of them are held out of the heads' training."""

from __future__ import annotations

import torch
from torch.nn import functional as F

_THUMBNAIL = 16
_ROUNDING = 0.006  # an 8-bit copy of a normalised image differs by less, averaged over a cell of the thumbnail


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


def hold_out(count: int, *, share: float, seed: int = 0) -> torch.Tensor:
    """Choose normals that train no head, so that the score's scale is measured on images the heads do not know.

    Args:
        count: Number of normals n.
        share: Share of them to hold out, in (0, 1); at least two, at most half.
        seed: Seed of the choice.

    Returns:
        (n,) bool.
    """
    held = torch.zeros(count, dtype=torch.bool)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    held[order[: min(max(2, round(share * count)), count // 2)]] = True
    return held
