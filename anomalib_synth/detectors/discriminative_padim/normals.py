"""The normals behind a training run: which images they are, and which of them are held out of the heads' training."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_THUMBNAIL = 16
_ROUNDING = 0.006  # an 8-bit copy of a normalised image differs by less, averaged over a cell of the thumbnail


class TrainingNormals:
    """The distinct normals of a run, found again by their content, or by the name of their file.

    A copy under another name is the same image. So is one that went through an 8-bit file and back, as the sources in a
    store do: those are found by a thumbnail. A JPEG copy is not; and an image that is augmented at random is found by
    its name alone.
    """

    def __init__(self) -> None:
        self._places: dict[bytes, int] = {}
        self._names: dict[str, int] = {}
        self._thumbnails: list[torch.Tensor] = []
        self._stacked: torch.Tensor | None = None

    def __len__(self) -> int:
        """Return the number of distinct normals."""
        return len(self._places)

    @property
    def keys(self) -> list[bytes]:
        """The digests of the normals, in order."""
        return list(self._places)

    def add(self, image: torch.Tensor, key: bytes, name: str | None = None) -> bool:
        """Add a (3, H, W) image with the digest of its pixels and its file's name; return whether it was new."""
        place = self._places.setdefault(key, len(self._places))
        if name is not None:
            self._names[name] = place
        if place < len(self._thumbnails):
            return False
        self._thumbnails.append(_thumbnail(image[None])[0])
        return True

    def find_name(self, name: str | None) -> int:
        """Return which normal came from the file of this name, -1 for none of them."""
        return -1 if name is None else self._names.get(name, -1)

    def fingerprint(self) -> int:
        """Return a number that tells sets of normals apart: by their names, or by content where they have none."""
        return fingerprint(self._names) if self._names else _hash(sorted(self._places))

    def find(self, image: torch.Tensor, key: bytes) -> int:
        """Return which normal a (3, H, W) image with this digest is, -1 for none of them."""
        place = self._places.get(key)
        if place is not None:
            return place
        if self._stacked is None or len(self._stacked) < len(self._thumbnails):
            self._stacked = torch.stack(self._thumbnails)
        gaps = (self._stacked - _thumbnail(image[None])).abs().amax(1)
        nearest = int(gaps.argmin())
        return nearest if float(gaps[nearest]) <= _ROUNDING else -1


def fingerprint(names: Iterable[str]) -> int:
    """Return the number of a set of normals, by what identifies their files; see :func:`.fitting.image_names`."""
    return _hash(sorted({name.encode() for name in names}))


def _hash(parts: Sequence[bytes]) -> int:
    return int.from_bytes(blake2b(b"\0".join(parts), digest_size=8).digest(), "little") >> 1


def _thumbnail(images: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) → (B, D) on the CPU."""
    return F.adaptive_avg_pool2d(images.detach().float().cpu(), _THUMBNAIL).flatten(1)


def hold_out(keys: Sequence[bytes], *, share: float) -> torch.Tensor:
    """Choose normals that train no head, so that the score's scale is measured on images the heads do not know.

    The choice follows the images' content, not their order. What they lend to other images' defects, as donors of a
    generator, still reaches the heads: that can only raise the heads on them, and so lower their part in the score.

    Args:
        keys: Digests of the n normals.
        share: Share of them to hold out, in (0, 1); at least two, at most half.

    Returns:
        (n,) bool.
    """
    count = len(keys)
    held = torch.zeros(count, dtype=torch.bool)
    order = sorted(range(count), key=lambda place: keys[place])
    held[order[: min(max(2, round(share * count)), count // 2)]] = True
    return held
