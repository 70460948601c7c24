"""What a defect looks like, in numbers that real and drawn ones share: from the image and the mask alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Mapping

MEASURES = (
    "size", "length", "elongation", "width", "fill", "pieces", "brightness", "contrast", "texture", "darkest",
    "brightest", "chroma", "sharpness", "place",
)  # fmt: skip
_LOGARITHMIC = {"size", "length", "elongation", "width", "pieces"}
_AROUND = 6
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def measure_defect(image: np.ndarray, mask: np.ndarray, part: np.ndarray | None = None) -> dict[str, float]:
    """Measure a defect against what is around it.

    Args:
        image: (H, W, 3) float32 in [0, 1].
        mask: (H, W) bool, with at least one pixel.
        part: (H, W) bool, where the part is; None: everywhere.

    Returns:
        By name: ``size``, the root of its area, and ``length`` and ``width``, the mean one, as shares of the shorter
        side; ``elongation``, the ratio of its principal axes; ``fill``, its share of its box; ``pieces``, their number;
        ``brightness``, how much brighter its mean is than what is around, ``contrast``, how far its pixels are from
        that on average, ``texture``, how much more they vary, ``darkest`` and ``brightest``, its 5 % and 95 % of that,
        ``chroma``, the distance of mean colours without luminance, all in image units; ``sharpness``, the step at its
        border; ``place``, the distance of its nearest pixel to the edge of the part, as a share of the shorter side.
    """
    height, width = mask.shape
    side = min(height, width)
    grey = image @ _LUMA
    rows, columns = np.nonzero(mask)
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    reach = max(_AROUND, side // 24)
    box = (
        slice(max(0, top - reach), min(height, bottom + reach)),
        slice(max(0, left - reach), min(width, right + reach)),
    )
    inside, grey, image = mask[box], grey[box], image[box]
    around = ndimage.binary_dilation(inside, iterations=reach) & ~ndimage.binary_dilation(inside, iterations=2)
    around = around if around.any() else ~inside if not inside.all() else inside
    level, colour = grey[around].mean(), image[around].mean(0)
    off = grey[inside] - level
    tint = image[inside].mean(0) - colour
    depth = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    long, short = _axes(rows, columns)
    dark, bright = np.quantile(off, [0.05, 0.95])
    return {
        "size": math.sqrt(len(rows)) / side,
        "length": 2 * long / side,
        "elongation": long / short,
        "width": 4 * float(depth[inside].mean()) / side,
        "fill": len(rows) / float((bottom - top) * (right - left)),
        "pieces": float(ndimage.label(inside, np.ones((3, 3)))[1]),
        "brightness": float(off.mean()),
        "contrast": float(np.abs(off).mean()),
        "texture": float(grey[inside].std() - grey[around].std()),
        "darkest": float(dark),
        "brightest": float(bright),
        "chroma": float(np.linalg.norm(tint - tint @ _LUMA)),
        "sharpness": _step(grey, inside) - float(np.abs(np.diff(grey, axis=1)).mean()),
        "place": _distance_to_edge(mask, part) / side,
    }


def to_vector(measured: Mapping[str, float]) -> np.ndarray:
    """Return the measures in the order of ``MEASURES``, those of which ratios count as logarithms."""
    return np.array(
        [math.log(max(measured[name], 1e-4)) if name in _LOGARITHMIC else measured[name] for name in MEASURES]
    )


def outline_in_box(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return what in a box is unlike its surroundings: (H, W) bool, by Otsu's threshold on the distance of colours.

    Args:
        image: (H, W, 3) float32 in [0, 1].
        box: (H, W) bool.
    """
    around = ndimage.binary_dilation(box, iterations=_AROUND) & ~box
    if not around.any():
        return box
    distance = np.linalg.norm(image - np.median(image[around], axis=0), axis=2)
    distance = ndimage.uniform_filter(distance, 3)
    values = np.sort(distance[box])
    below = np.arange(1, len(values))
    total = np.cumsum(values)
    if len(values) < 3 or values[0] == values[-1]:
        return box
    means = total[:-1] / below, (total[-1] - total[:-1]) / (len(values) - below)
    between = below * (len(values) - below) * (means[0] - means[1]) ** 2
    found = box & (distance > values[int(between.argmax())])
    return found if found.any() else box


def _axes(rows: np.ndarray, columns: np.ndarray) -> tuple[float, float]:
    """Return the half axes of the ellipse with the pixels' second moments; a pixel has a twelfth of its own."""
    spread = np.cov(np.stack([rows, columns]).astype(float), bias=True) + np.eye(2) / 12
    values = np.linalg.eigvalsh(spread)
    return 2 * math.sqrt(values[1]), 2 * math.sqrt(values[0])


def _step(grey: np.ndarray, inside: np.ndarray) -> float:
    """Return the mean absolute difference between neighbours on either side of the border."""
    steps = [np.abs(np.diff(grey, axis=axis))[np.diff(inside.astype(np.int8), axis=axis) != 0] for axis in (0, 1)]
    together = np.concatenate(steps)
    return float(together.mean()) if len(together) else 0.0


def _distance_to_edge(mask: np.ndarray, part: np.ndarray | None) -> float:
    """Return how far the nearest pixel of a mask is from where the part ends."""
    if part is None or part.all():
        rows, columns = np.nonzero(mask)
        height, width = mask.shape
        return float(min(rows.min(), columns.min(), height - 1 - rows.max(), width - 1 - columns.max()))
    return float(ndimage.distance_transform_edt(part)[mask].min())
