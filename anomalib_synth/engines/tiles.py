"""Images too large for memory: a defect is drawn in a tile of the image, at native size, and put back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from anomalib_synth.generators.seeding import RandomStream, hash64
from anomalib_synth.images.formats import MAX_NATIVE_PIXELS

if TYPE_CHECKING:
    import numpy as np

_SIDE = 2048


@dataclass(frozen=True)
class Tile:
    """A window of an image.

    Args:
        top: First row.
        left: First column.
        height: Rows.
        width: Columns.
    """

    top: int
    left: int
    height: int
    width: int

    @classmethod
    def choose(cls, pixels: np.ndarray, seed: int) -> Tile:
        """Choose a tile of an image (H, W, C): all of it up to 2**25 pixels, else 2048 x 2048 placed by the seed."""
        height, width = pixels.shape[:2]
        if height * width <= MAX_NATIVE_PIXELS:
            return cls(0, 0, height, width)
        rng = RandomStream(hash64(seed, "tile"))
        rows, columns = min(_SIDE, height), min(_SIDE, width)
        return cls(rng.integer(0, height - rows), rng.integer(0, width - columns), rows, columns)

    def cut(self, pixels: np.ndarray) -> np.ndarray:
        """Return the tile of an image (H, W, ...), a view."""
        return pixels[self.top : self.top + self.height, self.left : self.left + self.width]

    def put(self, drawn: np.ndarray, onto: np.ndarray) -> np.ndarray:
        """Return a copy of an image (H, W, ...) with the tile as it was drawn."""
        if drawn.shape == onto.shape:
            return drawn
        whole = onto.copy()
        self.cut(whole)[...] = drawn
        return whole

    def share_of(self, pixels: np.ndarray) -> float:
        """Return the share of the image's pixels that lie in the tile, in (0, 1]."""
        return self.height * self.width / (pixels.shape[0] * pixels.shape[1])
