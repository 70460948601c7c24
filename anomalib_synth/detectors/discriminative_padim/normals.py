"""The normals of a training run: recognising them, and holding some out of the heads' training."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_THUMBNAIL = 16
_ROUNDING = 0.006  # an 8-bit copy differs by less than this, averaged over a cell of the thumbnail


class TrainingNormals:
    """The distinct normals of a run, recognised by their content or by the name of their file.

    A copy under another name is the same image. So is a copy that went through an 8-bit file, like the sources in a
    store; a thumbnail recognises those. A JPEG copy is not recognised by content, and an image that is augmented at
    random is recognised by its name only.
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
        """Add a (3, H, W) image with the digest of its pixels and the name of its file; return whether it was new."""
        place = self._places.setdefault(key, len(self._places))
        if name is not None:
            self._names[name] = place
        if place < len(self._thumbnails):
            return False
        self._thumbnails.append(_thumbnail(image[None])[0])
        return True

    def find_name(self, name: str | None) -> int:
        """Return the index of the normal from the file of this name, -1 if there is none."""
        return -1 if name is None else self._names.get(name, -1)

    def fingerprint(self) -> int:
        """Return a number that identifies the set of normals: by file names, or by content where there are no names."""
        return fingerprint(self._names) if self._names else _hash(sorted(self._places))

    def find(self, image: torch.Tensor, key: bytes) -> int:
        """Return the index of the normal that a (3, H, W) image with this digest is, -1 if it is none."""
        place = self._places.get(key)
        if place is not None:
            return place
        if self._stacked is None or len(self._stacked) < len(self._thumbnails):
            self._stacked = torch.stack(self._thumbnails)
        gaps = (self._stacked - _thumbnail(image[None])).abs().amax(1)
        nearest = int(gaps.argmin())
        return nearest if float(gaps[nearest]) <= _ROUNDING else -1


def fingerprint(names: Iterable[str]) -> int:
    """Return the fingerprint of a set of normals from the keys of their files; see :func:`.fitting.image_names`."""
    return _hash(sorted({name.encode() for name in names}))


def _hash(parts: Sequence[bytes]) -> int:
    return int.from_bytes(blake2b(b"\0".join(parts), digest_size=8).digest(), "little") >> 1


def _thumbnail(images: torch.Tensor) -> torch.Tensor:
    """Return thumbnails: (B, 3, H, W) → (B, D) on the CPU."""
    return F.adaptive_avg_pool2d(images.detach().float().cpu(), _THUMBNAIL).flatten(1)


def hold_out(keys: Sequence[bytes], *, share: float) -> torch.Tensor:
    """Choose normals that train no head, to measure the scale of the score on images the heads do not know.

    The choice depends on the images' content, not on their order. A generator may still take patches of held-out
    normals for defects in other images, which the heads see. That can only raise the heads' output on the held-out
    normals, and so lower the heads' weight in the score.

    Args:
        keys: Digests of the n normals.
        share: Share of the normals to hold out, in (0, 1); at least two are held out, but never more than half.

    Returns:
        (n,) bool, True for held-out normals.
    """
    count = len(keys)
    held = torch.zeros(count, dtype=torch.bool)
    order = sorted(range(count), key=lambda place: keys[place])
    held[order[: min(max(2, round(share * count)), count // 2)]] = True
    return held
