"""The shapes that annotations outline, and the pixels that they cover.

Coordinates are continuous: pixel ``i`` covers ``i`` to ``i + 1``, as in COCO, CVAT, LabelMe and YOLO. What lies beyond
the image is cut off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from PIL import Image, ImageDraw

from anomalib_synth.images import read_mask

if TYPE_CHECKING:
    from pathlib import Path

Bounds = tuple[float, float, float, float]
_ROUNDING = 0.05  # pixels by which coordinates that were written as shares of the image may be off


@dataclass(frozen=True, eq=False)
class Region:
    """Pixels within a window of an image; ``inside`` is (h, w) bool."""

    rows: slice
    columns: slice
    inside: np.ndarray


class Shape(Protocol):
    """Something an annotation outlines."""

    @property
    def bounds(self) -> Bounds | None:
        """Left, top, right and bottom in pixels; None for a shape that is as large as its image."""

    def draw(self, height: int, width: int) -> Region:
        """Return its pixels in an image of the given size."""


@dataclass(frozen=True, eq=False)
class Box:
    """A rectangle along the image's sides: every pixel it touches."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def bounds(self) -> Bounds:
        """See :class:`Shape`."""
        return self.left, self.top, self.right, self.bottom

    def draw(self, height: int, width: int) -> Region:
        """See :class:`Shape`."""
        rows, columns = _window(self.bounds, height, width)
        return Region(rows, columns, np.ones(_shape(rows, columns), dtype=bool))


@dataclass(frozen=True, eq=False)
class Polygon:
    """A closed outline: the pixels whose centres lie within, by the even-odd rule, as pycocotools fills it.

    A polygon too thin to hold a pixel's centre covers the pixels that its outline passes. Pillow's own polygon fills
    its border as well, which would make a scratch of one pixel two or three pixels wide.

    Args:
        points: Corners ``(x, y)``, (N, 2) float, N >= 3.
    """

    points: np.ndarray

    @property
    def bounds(self) -> Bounds:
        """See :class:`Shape`."""
        return _bounds(self.points)

    @property
    def is_flat(self) -> bool:
        """Whether all corners lie on one line, so that there is nothing within."""
        vectors = self.points - self.points[0]
        along = vectors[np.argmax(np.abs(vectors).sum(1))]
        return bool((np.abs(vectors[:, 0] * along[1] - vectors[:, 1] * along[0]) < 1e-9).all())

    def draw(self, height: int, width: int) -> Region:
        """See :class:`Shape`."""
        rows, columns = _window(self.bounds, height, width)
        inside = self._fill(rows, columns)
        if not inside.any():
            inside = _draw_line(np.concatenate([self.points, self.points[:1]]), rows, columns)
        return Region(rows, columns, inside)

    def _fill(self, rows: slice, columns: slice) -> np.ndarray:
        """Fill row by row: a pixel is inside when an odd number of edges cross the row on its left."""
        high, wide = _shape(rows, columns)
        crossings = np.zeros((high, wide + 1), dtype=np.uint8)
        points = self.points - (columns.start + 0.5, rows.start + 0.5)  # whole numbers are centres of pixels
        for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
            first, last = (min(max(math.ceil(y), 0), high) for y in sorted((y0, y1)))
            if first < last:
                line = np.arange(first, last)
                across = np.ceil(x0 + (line - y0) * ((x1 - x0) / (y1 - y0)))
                crossings[line, np.clip(across, 0, wide).astype(int)] ^= 1
        return np.bitwise_xor.accumulate(crossings, axis=1)[:, :wide].astype(bool)


@dataclass(frozen=True, eq=False)
class Ellipse:
    """An ellipse: the pixels whose centres lie within, or the one at its centre.

    Args:
        x: Column of its centre, in pixels.
        y: Row of its centre, in pixels.
        radii: Half the lengths of its two axes in pixels, > 0: along the columns and down the rows at angle 0.
        angle: Clockwise rotation in degrees.
    """

    x: float
    y: float
    radii: tuple[float, float]
    angle: float = 0.0

    @property
    def bounds(self) -> Bounds:
        """See :class:`Shape`."""
        cos, sin = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        across, down = (math.hypot(self.radii[0] * a, self.radii[1] * b) for a, b in ((cos, sin), (sin, cos)))
        return self.x - across, self.y - down, self.x + across, self.y + down

    def draw(self, height: int, width: int) -> Region:
        """See :class:`Shape`."""
        rows, columns = _window(self.bounds, height, width)
        dy = np.arange(rows.start, rows.stop)[:, None] + 0.5 - self.y
        dx = np.arange(columns.start, columns.stop) + 0.5 - self.x
        cos, sin = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        along, across = (dx * cos + dy * sin) / self.radii[0], (dy * cos - dx * sin) / self.radii[1]
        inside = along**2 + across**2 <= 1
        if not inside.any():
            inside = _draw_line(np.array([[self.x, self.y]]), rows, columns)
        return Region(rows, columns, inside)


@dataclass(frozen=True, eq=False)
class Stroke:
    """A click (one point) or a line through points ``(x, y)``, (N, 2) float, one pixel wide."""

    points: np.ndarray

    @property
    def bounds(self) -> Bounds:
        """See :class:`Shape`."""
        return _bounds(self.points)

    def draw(self, height: int, width: int) -> Region:
        """See :class:`Shape`."""
        left, top, right, bottom = self.bounds
        rows, columns = _window((left - 1, top - 1, right + 1, bottom + 1), height, width)
        ends = np.array([width, height])
        points = np.where(self.points == ends, ends - 1, self.points)  # on the far border: the last pixel
        return Region(rows, columns, _draw_line(points, rows, columns))


@dataclass(frozen=True, eq=False)
class Bitmap:
    """Pixels (h, w) bool with their corner at a pixel."""

    left: int
    top: int
    pixels: np.ndarray

    @property
    def bounds(self) -> Bounds:
        """See :class:`Shape`."""
        return self.left, self.top, self.left + self.pixels.shape[1], self.top + self.pixels.shape[0]

    def draw(self, height: int, width: int) -> Region:
        """See :class:`Shape`."""
        rows, columns = _window(self.bounds, height, width)
        cut = (
            slice(rows.start - self.top, rows.stop - self.top),
            slice(columns.start - self.left, columns.stop - self.left),
        )
        return Region(rows, columns, self.pixels[cut])


@dataclass(frozen=True, eq=False)
class MaskFile:
    """A mask in a file of its own; ``argument`` is the name of the user's argument, for errors."""

    path: Path
    image: Path
    argument: str

    @property
    def bounds(self) -> None:
        """See :class:`Shape`."""
        return

    def draw(self, height: int, width: int) -> Region:
        """See :class:`Shape`.

        Raises:
            ValueError: If the mask is unreadable, empty, inverted, or not of its image's size.
        """
        inside = read_mask(self.path, self.argument)
        if inside.shape != (height, width):
            own = f"{inside.shape[1]} x {inside.shape[0]}"
            msg = (
                f"`{self.argument}` must have the sizes of their images, but {str(self.path)!r} is {own} pixels and "
                f"{str(self.image)!r} is {width} x {height}. Export the mask at the image's size."
            )
            raise ValueError(msg)
        return Region(slice(0, height), slice(0, width), inside)


def _bounds(points: np.ndarray) -> Bounds:
    (left, top), (right, bottom) = points.min(0), points.max(0)
    return float(left), float(top), float(right), float(bottom)


def _window(bounds: Bounds, height: int, width: int) -> tuple[slice, slice]:
    """Return the rows and columns of the image that bounds touch, at least one of each."""
    left, top, right, bottom = bounds
    spans = []
    for start, end, length in ((top, bottom, height), (left, right, width)):
        first = min(max(math.floor(start + _ROUNDING), 0), length - 1)
        spans.append(slice(first, min(max(math.ceil(end - _ROUNDING), first + 1), length)))
    return spans[0], spans[1]


def _shape(rows: slice, columns: slice) -> tuple[int, int]:
    return rows.stop - rows.start, columns.stop - columns.start


def _draw_line(points: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
    """Return the pixels (h, w) bool of a window that a line through points passes."""
    canvas = Image.new("L", _shape(rows, columns)[::-1])
    corners = [(math.floor(x) - columns.start, math.floor(y) - rows.start) for x, y in points]
    draw = ImageDraw.Draw(canvas)
    draw.line(corners, fill=1) if len(corners) > 1 else draw.point(corners, fill=1)
    return np.asarray(canvas) > 0
