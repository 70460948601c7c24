"""The most anomalous region of an image: where it is on the detector's map, and in the image."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional as F

if TYPE_CHECKING:
    from anomalib_synth.prediction.detector import DetectorOutput

_MOST = 0.5  # largest share of the map that a mask may fill and still locate something
_TOUCHING = np.ones((3, 3), int)  # diagonal neighbours belong together


class PixelBox(NamedTuple):
    """A rectangle in pixels of an image."""

    left: int
    top: int
    width: int
    height: int


class AnomalousRegion(NamedTuple):
    """The most anomalous region of an image.

    Args:
        box: Around the region, in pixels of the image.
        peak: Column and row of the image's pixel with the largest value.
        outline: What a picture outlines, (h, w) bool on the detector's map: everything above the pixel threshold, or
            the region alone where that threshold did not choose it.
    """

    box: PixelBox
    peak: tuple[int, int]
    outline: np.ndarray


def locate_region(finding: DetectorOutput, view: torch.Tensor | None, size: tuple[int, int]) -> AnomalousRegion | None:
    """Return where the most anomalous region of an image is.

    The region is the connected part (8 neighbours) that holds the map's largest value. It consists of the pixels above
    the pixel threshold. Where no pixel is above it, or more than half of the map is, it consists of the pixels that
    reach at least the midpoint between the map's median and its largest value.

    Args:
        finding: What the detector says of the image.
        view: Where the image's pixels are on the map, (2, 3), as :func:`find_view` returns it; None if not known.
        size: Height and width of the image.

    Returns:
        The region; None where there is no map, the map is constant or not finite, or ``view`` is None.
    """
    values = finding.anomaly_map
    if values is None or view is None or not np.isfinite(values).all() or values.max() <= values.min():
        return None
    peak = _find_peak(values)
    mask = finding.mask
    if mask is not None and mask[peak] and mask.mean() <= _MOST:
        inside, outlines_all = mask, True
    else:
        inside, outlines_all = values >= (np.median(values) + values.max()) / 2, False
    labels, _ = ndimage.label(inside, _TOUCHING)
    region = labels == labels[peak]
    rows, columns = (np.flatnonzero(region.any(axis)) for axis in (1, 0))
    corners = [(x, y) for x in (columns[0], columns[-1] + 1) for y in (rows[0], rows[-1] + 1)]
    xs, ys = zip(*(_to_image(corner, values.shape, view, size) for corner in corners), strict=True)
    left, right = _clip(min(xs), max(xs), size[1])
    top, bottom = _clip(min(ys), max(ys), size[0])
    x, y = _to_image((peak[1] + 0.5, peak[0] + 0.5), values.shape, view, size)
    pixel = (int(np.clip(x, 0, size[1] - 1)), int(np.clip(y, 0, size[0] - 1)))
    return AnomalousRegion(PixelBox(left, top, right - left, bottom - top), pixel, inside if outlines_all else region)


def lay_on_image(mask: np.ndarray, view: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    """Return a mask (h, w) on a detector's map as a mask (H, W) bool on the image; it is False outside the map."""
    grid = F.affine_grid(view[None].float(), [1, 1, *size], align_corners=False)
    levels = torch.from_numpy(mask.astype(np.float32))[None, None]
    placed = F.grid_sample(levels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return (placed[0, 0] > 0.5).numpy()


def _find_peak(values: np.ndarray) -> tuple[int, int]:
    """Return row and column of the largest value; if it fills areas, the pixel nearest the middle of the largest."""
    labels, count = ndimage.label(values == values.max(), _TOUCHING)
    if count > 1:
        labels = labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
    rows, columns = np.nonzero(labels)
    nearest = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
    return int(rows[nearest]), int(columns[nearest])


def _to_image(
    point: tuple[float, float], grid: tuple[int, ...], view: torch.Tensor, size: tuple[int, int]
) -> tuple[float, float]:
    """Turn a point (x, y) in pixels of the map into one in pixels of the image."""
    turn, shift = view[:, :2].double().cpu().numpy(), view[:, 2].double().cpu().numpy()
    on_map = np.array([2 * point[0] / grid[1] - 1, 2 * point[1] / grid[0] - 1])
    x, y = np.linalg.solve(turn, on_map - shift)
    return float((x + 1) / 2 * size[1]), float((y + 1) / 2 * size[0])


def _clip(low: float, high: float, length: int) -> tuple[int, int]:
    """Return first and end of the whole pixels that cover a range, within the image, at least one pixel."""
    start = min(max(math.floor(low + 1e-3), 0), length - 1)
    return start, min(max(math.ceil(high - 1e-3), start + 1), length)
