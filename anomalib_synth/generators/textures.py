"""Foreign textures: from a user's folder, or rendered procedurally."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from kornia.enhance import invert
from PIL import Image
from torch.nn import functional as F

from anomalib_synth.functional.enhancement import (
    Step,
    change_brightness,
    change_chroma,
    change_depth,
    change_gamma,
    change_solarisation,
    equalise_palette,
    jitter_palette,
    look_up,
)
from anomalib_synth.functional.textures import procedural_texture
from anomalib_synth.images import (
    UnreadableImageError,
    WhitePoint,
    allow_large_images,
    decode_image,
    find_white_point,
    list_images,
    read_bytes,
    warn_of_left_out,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from anomalib_synth.generators.seeding import RandomStream

_MAX_SIDE = 512
_CACHE = 64
_RENDERED = 96
_RENDERED_SIDE = 256


class TextureSource(Protocol):
    """Where windows of foreign texture come from."""

    def cut(self, rng: RandomStream, size: tuple[int, int], channels: int) -> torch.Tensor:
        """Cut a random window: (channels, h, w) float32 in [0, 1]."""


class ProceduralTextures:
    """A fixed set of 96 rendered textures, each rendered on first use and then kept in memory."""

    def __init__(self) -> None:
        self._cache: dict[int, _Texture] = {}

    def cut(self, rng: RandomStream, size: tuple[int, int], channels: int) -> torch.Tensor:
        """Cut a random window out of a random texture, its tones varied: (channels, h, w) float32 in [0, 1]."""
        index = rng.integer(0, _RENDERED - 1)
        if index not in self._cache:
            self._cache[index] = _Texture(*procedural_texture(index, _RENDERED_SIDE))
        return _cut(self._cache[index], rng, size, channels)


class TextureFolder:
    """The images of a folder (searched recursively) as textures; up to 64 that were read are kept in memory.

    Args:
        path: The folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._cache: dict[Path, _Texture] = {}

    @cached_property
    def files(self) -> list[Path]:
        """The texture files, sorted.

        Raises:
            ValueError: If the folder does not exist or holds no image.
        """
        if not self.path.is_dir():
            msg = f"`texture_dir` must be a folder, got {str(self.path)!r}. Use null for procedural textures."
            raise ValueError(msg)
        listing = list_images(self.path, "texture_dir")
        warn_of_left_out(listing.left_out, "texture_dir")
        return listing.paths

    @cached_property
    def _white_point(self) -> WhitePoint:
        return find_white_point(self.files)

    def cut(self, rng: RandomStream, size: tuple[int, int], channels: int) -> torch.Tensor:
        """Cut a random window out of a random texture, its tones varied: (channels, h, w) float32 in [0, 1]."""
        return _cut(self._read(rng.choice(self.files)), rng, size, channels)

    def _read(self, file: Path) -> _Texture:
        """Read a file, at most 512 pixels a side."""
        if file not in self._cache:
            try:
                with allow_large_images():
                    image = Image.fromarray(decode_image(read_bytes(file), white_point=self._white_point))
            except UnreadableImageError as error:
                msg = f"`texture_dir` holds an unreadable image, {str(file)!r}: {error}. Remove or replace it."
                raise ValueError(msg) from error
            image.thumbnail((_MAX_SIDE, _MAX_SIDE))
            if len(self._cache) >= _CACHE:
                self._cache.pop(next(iter(self._cache)))
            self._cache[file] = _index(image)
        return self._cache[file]


class _Texture:
    """A texture as indices (H, W) uint8 into a palette (3, 256) in [0, 1]."""

    def __init__(self, index: torch.Tensor, palette: torch.Tensor) -> None:
        self.index = index
        self.palette = palette

    @cached_property
    def equalised(self) -> torch.Tensor:
        """The palette that equalises the texture's histograms."""
        return equalise_palette(self.palette, self.index)


def _index(image: Image.Image) -> _Texture:
    """Reduce an RGB image to 256 colours, chosen by median cut."""
    indexed = image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    colours = np.zeros((256, 3), dtype=np.uint8)
    listed = np.array(indexed.getpalette(), dtype=np.uint8).reshape(-1, 3)
    colours[: len(listed)] = listed
    return _Texture(torch.from_numpy(np.array(indexed)), torch.from_numpy(colours.T / 255).float().contiguous())


def _cut(texture: _Texture, rng: RandomStream, size: tuple[int, int], channels: int) -> torch.Tensor:
    """Cut a window out of a texture and vary its colours; a texture smaller than the window is enlarged.

    As in DRAEM (arXiv 2108.07610), three of its photometric transforms are drawn. Unlike there, equalising always comes
    first, and there is no sharpening, no automatic contrast and no rotation.
    """
    height, width = texture.index.shape
    scale = max(1.0, size[0] / height, size[1] / width)
    h, w = (min(most, math.ceil(side / scale)) for most, side in zip((height, width), size, strict=True))
    top, left = rng.integer(0, height - h), rng.integer(0, width - w)
    drawn = _draw_three(rng)
    palette = texture.equalised if _EQUALISE in drawn else texture.palette
    palette = jitter_palette(palette, [_STEPS[name](rng) for name in drawn if name != _EQUALISE])
    if channels == 1:
        channel = rng.integer(0, 2)
        palette = palette[channel : channel + 1]
    window = look_up(palette, texture.index[top : top + h, left : left + w])
    return F.interpolate(window[None], size=size, mode="nearest")[0] if scale > 1 else window


def _draw_three(rng: RandomStream) -> list[str]:
    """Draw three different transforms, in the order in which they were drawn."""
    left = [_EQUALISE, *_STEPS]
    return [left.pop(rng.integer(0, len(left) - 1)) for _ in range(3)]


_EQUALISE = "equalise"
_STEPS: dict[str, Callable[[RandomStream], Step]] = {
    "gamma": lambda rng: change_gamma([rng.uniform(0.5, 2.0) for _ in range(3)]),
    "brightness": lambda rng: change_brightness(rng.uniform(0.8, 1.2), rng.uniform(-0.12, 0.12)),
    "hue": lambda rng: change_chroma(rng.uniform(0.5, 1.5), rng.uniform(-math.pi, math.pi)),
    "solarise": lambda rng: change_solarisation(rng.uniform(0.125, 0.5)),
    "posterise": lambda rng: change_depth(rng.integer(2, 6)),
    "invert": lambda rng: invert,
}
