"""Where a defect goes, and how large the window around it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from anomalib_synth.generators.families.family import Params

_WINDOW_SIDES = [
    16, 24, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768,
    1024, 1536, 2048, 3072, 4096,
]  # fmt: skip


def window_side(extent: float, limit: int) -> int:
    """Return the smallest standard side that holds the extent, at most ``limit``: with few sizes, batches are large."""
    return min(limit, next((side for side in _WINDOW_SIDES if side >= extent), limit))


def place_centre(
    params: Params, cells: np.ndarray | None, height: int, width: int, *, edge: bool = False
) -> tuple[float, float]:
    """Return the centre (row, column) of a defect, in pixels.

    Args:
        params: With ``place``, ``place_y`` and ``place_x``, each drawn from [0, 1).
        cells: (h, w) bool on any grid, where the centre may be; None: everywhere.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        edge: Take only cells at the edge of the allowed ones; if all are allowed, a border of the image.
    """
    candidates: np.ndarray | None = None
    if edge and cells is not None and not cells.all():
        padded = np.pad(cells, 1)
        inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        candidates = np.flatnonzero(cells & ~inner)
    elif edge:
        return _on_border(params, height, width)
    elif cells is not None:
        candidates = np.flatnonzero(cells)
    if cells is None or candidates is None or len(candidates) == 0:
        return params["place_y"] * height, params["place_x"] * width
    row, column = divmod(int(candidates[int(params["place"] * len(candidates))]), cells.shape[1])
    return (row + params["place_y"]) / cells.shape[0] * height, (column + params["place_x"]) / cells.shape[1] * width


def _on_border(params: Params, height: int, width: int) -> tuple[float, float]:
    """Return a place on one of the image's four borders, where a part that fills the image ends."""
    side = int(params["place"] * 4)
    along_y, along_x = params["place_y"] * height, params["place_x"] * width
    return [(0.0, along_x), (height - 1.0, along_x), (along_y, 0.0), (along_y, width - 1.0)][side]
