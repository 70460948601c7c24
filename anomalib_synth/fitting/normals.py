"""The normals of a fit: splits off the held-out ones and computes a digest of all."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from anomalib_synth.generators.seeding import hash64

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch


def split_normals(
    normals: Sequence[torch.Tensor], *, held_out: float, seed: int
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return the normals to train on and the held-out ones, chosen by the seed; at least one image each."""
    order = sorted(range(len(normals)), key=lambda index: hash64(seed, "split", index))
    count = min(len(normals) - 1, max(1, round(held_out * len(normals))))
    return [normals[index] for index in order[count:]], [normals[index] for index in order[:count]]


def hash_images(images: Sequence[torch.Tensor]) -> str:
    """Return a digest of images that does not depend on their order."""
    digests = sorted(
        blake2b(image.numpy().tobytes(), digest_size=16, key=str(tuple(image.shape)).encode()).digest()
        for image in images
    )
    return blake2b(b"".join(digests), digest_size=16).hexdigest()
