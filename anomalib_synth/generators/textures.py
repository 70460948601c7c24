"""Foreign textures: from a user's folder, or rendered."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from anomalib_synth.functional.textures import procedural_texture
from anomalib_synth.images import (
    UnreadableImageError,
    WhitePoint,
    allow_large_images,
    decode_image,
    find_white_point,
    list_images,
    read_bytes,
)

if TYPE_CHECKING:
    from anomalib_synth.generators.seeding import Draws

_MAX_SIDE = 512
_CACHE = 64
_RENDERED = 96
_RENDERED_SIDE = 256


class TextureSource(Protocol):
    """Where windows of foreign texture come from."""

    def cut(self, rng: Draws, size: tuple[int, int], channels: int) -> torch.Tensor:
        """Cut a random window: (channels, h, w) float32 in [0, 1]."""


class ProceduralTextures:
    """A fixed set of 96 rendered textures, each rendered on first use and kept for the next."""

    def __init__(self) -> None:
        self._cache: dict[int, torch.Tensor] = {}

    def cut(self, rng: Draws, size: tuple[int, int], channels: int) -> torch.Tensor:
        """Cut a random window out of a random texture, recoloured: (channels, h, w) float32 in [0, 1]."""
        index = rng.integer(0, _RENDERED - 1)
        if index not in self._cache:
            texture = procedural_texture(torch.tensor([index]), (_RENDERED_SIDE, _RENDERED_SIDE), 3)[0]
            self._cache[index] = (texture * 255).round().to(torch.uint8)
        return _cut(self._cache[index], rng, size, channels)


class TextureFolder:
    """Images of a folder (searched recursively) as texture sources, read on first use and kept for the next.

    Args:
        path: The folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._cache: dict[Path, torch.Tensor] = {}

    @cached_property
    def files(self) -> list[Path]:
        """The texture files, sorted.

        Raises:
            ValueError: If the folder does not exist or holds no image.
        """
        if not self.path.is_dir():
            msg = f"`texture_dir` must be a folder, got {str(self.path)!r}. Use null for procedural textures."
            raise ValueError(msg)
        return list_images(self.path, "texture_dir").paths

    @cached_property
    def _white_point(self) -> WhitePoint:
        return find_white_point(self.files)

    def cut(self, rng: Draws, size: tuple[int, int], channels: int) -> torch.Tensor:
        """Cut a random window out of a random texture, recoloured: (channels, h, w) float32 in [0, 1]."""
        return _cut(self._read(rng.choice(self.files)), rng, size, channels)

    def _read(self, file: Path) -> torch.Tensor:
        """Read a file as (3, H, W) uint8, at most 512 pixels a side."""
        if file not in self._cache:
            try:
                with allow_large_images():
                    image = Image.fromarray(decode_image(read_bytes(file), white_point=self._white_point))
            except UnreadableImageError as error:
                msg = f"`texture_dir` holds an unreadable image, {str(file)!r}: {error}. Remove or replace it."
                raise ValueError(msg) from error
            image.thumbnail((_MAX_SIDE, _MAX_SIDE))
            pixels = np.array(image)
            if len(self._cache) >= _CACHE:
                self._cache.pop(next(iter(self._cache)))
            self._cache[file] = torch.from_numpy(pixels).permute(2, 0, 1)
        return self._cache[file]


def _cut(texture: torch.Tensor, rng: Draws, size: tuple[int, int], channels: int) -> torch.Tensor:
    """Cut a window out of a (3, H, W) uint8 texture, enlarged if it is smaller, and vary its colours.

    DRAEM jitters textures by a random choice of photometric transforms; here channels are rotated, and the colours
    inverted, darkened or brightened.
    """
    h, w = size
    scale = max(h / texture.shape[1], w / texture.shape[2])
    if scale > 1:
        enlarged = (max(h, int(texture.shape[1] * scale)), max(w, int(texture.shape[2] * scale)))
        texture = F.interpolate(texture[None], size=enlarged, mode="nearest")[0]
    top, left = rng.integer(0, texture.shape[1] - h), rng.integer(0, texture.shape[2] - w)
    window = texture[:, top : top + h, left : left + w]
    gain, invert, turn = rng.uniform(0.6, 1.0) / 255, rng.unit() < 0.25, rng.integer(0, 2)
    window = window[[turn, (turn + 1) % 3, (turn + 2) % 3]] if channels == 3 else window[turn : turn + 1]
    window = window * gain
    return window.neg_().add_(1) if invert else window
