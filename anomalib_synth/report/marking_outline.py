"""Proposed outlines: within a box or along a scribble by GrabCut, or from an anomaly map.

GrabCut (Rother et al., SIGGRAPH 2004; OpenCV's implementation) runs on the surroundings of the mark at a bounded size,
so that its time does not depend on the size of the image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

_SIDE = 256  # of the surroundings, in pixels; larger surroundings are shrunk
_MAGNIFIED = 4.0  # at most; small marks are enlarged, as GrabCut needs enough pixels
_ITERATIONS = {"rectangle": 2, "linestrip": 4, "point": 4}
OUTLINED = tuple(_ITERATIONS)
_LEAST_COLOURS = 25  # pixels, for the colours of the defect or of its surroundings
_FULL = 0.97  # share of a box; more means that GrabCut found no difference
_COMPACT = 0.3  # least share of the differing pixels in the largest region; noise has many small ones
_SPECK = 0.03  # of the largest region's area
_LIMIT = 0.5  # of a map: more than in any good image
_TOP_SHARE = 0.01
_MOST_CORNERS, _FEWEST_CELLS = 40_000, 128
_LARGE = 0.25  # of the largest region's area
_MOST_REGIONS = 5


class Proposer(Protocol):
    """Proposes where the defect of an image may be, before anything is marked."""

    def propose(self, image: np.ndarray) -> np.ndarray:
        """Return a map (H, W) float in [0, 1] of an image (H, W, 3) uint8; no good image is above 0.5."""


class _Window(NamedTuple):
    """A part of an image."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def place(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)


def outline_shape(image: np.ndarray, shape: dict[str, Any]) -> np.ndarray | None:
    """Return the outline proposed within a box or along a scribble.

    Args:
        image: (H, W, 3) uint8, RGB.
        shape: A rectangle, a linestrip or a point of LabelMe.

    Returns:
        (H, W) bool, or None if nothing stands out or the shape is of another kind.
    """
    if shape.get("shape_type") not in OUTLINED or not shape["points"]:
        return None
    points = np.asarray(shape["points"], dtype=float)
    is_box = shape["shape_type"] == "rectangle"
    if is_box and len(points) != 2:
        return None
    height, width = image.shape[:2]
    points = np.clip(points, 0, (width, height))
    window = _look_around(
        points,
        (height, width),
        share=0.2 if is_box else 0.5,
        at_least=4 if is_box else max(24, min(height, width) // 16),
    )
    part = image[window.place]
    scale = min(_MAGNIFIED, _SIDE / max(part.shape[:2]))
    small = _resize(part, scale)
    local = (points - (window.left, window.top)) * (small.shape[1] / part.shape[1], small.shape[0] / part.shape[0])
    labels = (
        _label_box(small, local) if is_box else _label_scribble(local, small.shape[:2], line=max(3, round(2 * scale)))
    )
    inside = _cut(small, labels, iterations=_ITERATIONS[shape["shape_type"]])
    if is_box and (inside is None or not inside.any()):
        inside = _take_contrast(labels)
    if inside is None:
        return None
    inside = _keep_large(inside, _SPECK) if is_box else _keep_touched(inside, labels)
    outline = np.zeros((height, width), bool)
    outline[window.place] = _enlarge(inside, part.shape[:2])
    if is_box:
        box = _Window(*np.floor(points.min(0)).astype(int).tolist(), *np.ceil(points.max(0)).astype(int).tolist())
        within = np.zeros_like(outline)
        within[box.place] = True
        outline &= within
        if outline.sum() > _FULL * within.sum():
            return None
    return outline if outline.any() and not outline.all() else None


def outline_map(found: np.ndarray) -> np.ndarray | None:
    """Return the outline of a map (H, W) in [0, 1]: its largest regions above 0.5, else within its top 1 %.

    As maps are smooth, a wide area around a strong defect is above 0.5. There the limit is raised to half of the odds,
    p / (1 - p), of the largest value.

    Returns:
        (H, W) bool, or None if the map has no such region.
    """
    if found.max() <= found.min():
        return None
    odds = found.max() / max(1 - found.max(), 1e-6)
    inside = found > max(_LIMIT, odds / (odds + 2))
    if found.max() <= _LIMIT:
        inside = found > np.quantile(found, 1 - _TOP_SHARE)
    inside = _keep_large(inside, _LARGE, most=_MOST_REGIONS)
    return inside if inside.any() and not inside.all() else None


def _look_around(points: np.ndarray, size: tuple[int, int], *, share: float, at_least: int) -> _Window:
    """Return the part of an image around points, half of their extent wider on each side."""
    low, high = points.min(0), points.max(0)
    margin = np.maximum((high - low) * share, at_least)
    left, top = np.maximum(np.floor(low - margin), 0).astype(int).tolist()
    right, bottom = np.minimum(np.ceil(high + margin) + 1, (size[1], size[0])).astype(int).tolist()
    return _Window(left, top, right, bottom)


def _label_box(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return GrabCut's labels of a box: around it is background; pixels inside that differ from that may be defect."""
    import cv2

    size = image.shape[:2]
    inside = np.zeros(size, bool)
    left, top = np.floor(points.min(0)).astype(int).tolist()
    right, bottom = np.ceil(points.max(0)).astype(int).tolist()
    inside[max(top, 0) : bottom, max(left, 0) : right] = True
    around = ~inside
    if around.sum() < _LEAST_COLOURS:  # the box is the whole image, so its frame counts as surroundings
        frame = max(1, min(size) // 16)
        around[:frame] = around[-frame:] = around[:, :frame] = around[:, -frame:] = True
    smooth = cv2.GaussianBlur(image, (5, 5), 0).astype(np.float32)
    middle, spread = np.median(smooth[around], 0), smooth[around].std(0) + 1
    contrast = np.sqrt((((smooth - middle) / spread) ** 2).sum(2))
    levels = (255 * contrast / contrast.max()).astype(np.uint8) if contrast.any() else np.zeros(size, np.uint8)
    limit, _ = cv2.threshold(levels[inside][None], 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    labels = np.where(levels > limit, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[~inside] = cv2.GC_BGD
    return labels


def _label_scribble(points: np.ndarray, size: tuple[int, ...], *, line: int) -> np.ndarray:
    """Return GrabCut's labels of a scribble: the line is defect, pixels near it may be, the frame is background."""
    import cv2

    path = np.round(points).astype(np.int32)[:, None]
    near = max(3, min(size) // 5)
    labels = np.full(size, cv2.GC_BGD, np.uint8)
    labels[1:-1, 1:-1] = cv2.GC_PR_BGD
    for thickness, label in ((2 * near, cv2.GC_PR_FGD), (line, cv2.GC_FGD)):
        cv2.polylines(labels, [path], isClosed=False, color=int(label), thickness=thickness)
        centre = (int(path[0, 0, 0]), int(path[0, 0, 1]))
        cv2.circle(labels, centre, thickness // 2, int(label), cv2.FILLED)
    return labels


def _cut(image: np.ndarray, labels: np.ndarray, *, iterations: int) -> np.ndarray | None:
    """Run GrabCut; None if there are too few pixels to learn colours from."""
    import cv2

    inner = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD))
    if min(inner.sum(), (~inner).sum()) < _LEAST_COLOURS:
        return None
    cv2.setRNGSeed(0)  # the same mark proposes the same outline
    around, defect = np.zeros((1, 65)), np.zeros((1, 65))  # the colour models that GrabCut fits
    pixels, unused = np.ascontiguousarray(image), (0, 0, 1, 1)
    found, *_ = cv2.grabCut(pixels, labels.copy(), unused, around, defect, iterations, cv2.GC_INIT_WITH_MASK)
    return np.isin(found, (cv2.GC_FGD, cv2.GC_PR_FGD))


def _take_contrast(labels: np.ndarray) -> np.ndarray | None:
    """Return the pixels that differ from the surroundings of a box, for when GrabCut finds none; None for noise."""
    import cv2

    inside = labels == cv2.GC_PR_FGD
    _, areas = _find_regions(inside)
    return inside if len(areas) and areas.max() >= _COMPACT * areas.sum() else None


def _keep_large(inside: np.ndarray, share: float, *, most: int = 50) -> np.ndarray:
    """Return the regions that have at least a share of the largest region's area; at most ``most`` of them."""
    labels, areas = _find_regions(inside)
    if not len(areas):
        return inside
    order = np.argsort(-areas, kind="stable")[:most]
    return np.isin(labels, 1 + order[areas[order] >= share * areas.max()])


def _keep_touched(inside: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the regions that the scribble runs through."""
    import cv2

    regions, _ = _find_regions(inside)
    touched = np.unique(regions[labels == cv2.GC_FGD])
    return np.isin(regions, touched[touched > 0])


def _find_regions(inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of each pixel's region (H, W), 0 outside, and the areas of regions 1, 2, …."""
    import cv2

    _, labels, statistics, _ = cv2.connectedComponentsWithStats(inside.astype(np.uint8), connectivity=8)
    return labels, statistics[1:, cv2.CC_STAT_AREA]


def _resize(image: np.ndarray, scale: float) -> np.ndarray:
    import cv2

    if scale == 1:
        return image
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def _enlarge(inside: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Return a mask at another size, its outline smooth."""
    import cv2

    if inside.shape == tuple(size):
        return inside
    smooth = cv2.resize(inside.astype(np.float32), (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return smooth > _LIMIT


def trace_mask(mask: np.ndarray, *, cells: int = 2048) -> str:
    """Return the regions of a mask (H, W) bool as SVG path data for the even-odd rule; ``""`` for an empty mask.

    Args:
        mask: The mask.
        cells: The marked area is divided into at most this many cells per side; a cell with any marked pixel counts.
    """
    import cv2

    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return ""
    top, left = int(rows[0]), int(columns[0])
    inside = mask[top : rows[-1] + 1, left : columns[-1] + 1].astype(np.uint8)
    step = max(1, -(-max(inside.shape) // cells))
    if step > 1:
        padded = np.pad(inside, ((0, -inside.shape[0] % step), (0, -inside.shape[1] % step)))
        inside = padded.reshape(padded.shape[0] // step, step, -1, step).max((1, 3))
    doubled = np.pad(inside.repeat(2, 0).repeat(2, 1), 1)  # so that lines of one cell have an inside
    contours, _ = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if sum(map(len, contours)) > _MOST_CORNERS and cells > _FEWEST_CELLS:
        return trace_mask(mask, cells=cells // 2)
    place = np.array([left, top])
    paths = []
    for contour in contours:
        points = place + (contour[:, 0] - 0.5) / 2 * step  # a doubled cell's middle, without the padding
        paths.append("M" + "L".join(f"{x:g} {y:g}" for x, y in points.tolist()) + "Z")
    return "".join(paths)
