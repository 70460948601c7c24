"""The marks of a defect, and the one array that holds what all marks of an image say of each pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from anomalib_synth.defects.shapes import MaskFile, Stroke

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anomalib_synth.defects.shapes import Region, Shape

Kind = Literal["mask", "box", "scribble", "point", "image"]
GOOD, WHOLE_IMAGE, UNKNOWN, DEFECT = 0, 1, 254, 255
MOST_BOXES = 253
_ROUNDING = 1e-3  # of distances in single precision
_RADIUS_SHARE = 0.01  # of the image's shorter side: how far around a click or a line the defect is certain


@dataclass(frozen=True, eq=False, kw_only=True)
class Mark:
    """One annotation.

    Args:
        kind: ``mask``: its pixels are the defect, and no others; ``box``: at least one of its pixels is defective;
            ``point``, ``scribble``: its pixels are defective, and nothing is known about the others.
        shape: Where it is.
        where: What it is and in which file, for errors.
        label: Type of the defect, ``""`` where none is given.
    """

    kind: Literal["mask", "box", "scribble", "point"]
    shape: Shape
    where: str
    label: str = ""

    def check(self, height: int, width: int) -> None:
        """Refuse a mark that lies outside its image of the given size.

        Raises:
            ValueError: If it does, or its mask cannot be read; the message names the file.
        """
        bounds = self.shape.bounds
        if isinstance(self.shape, MaskFile):
            self.shape.draw(height, width)
        elif bounds is not None:
            left, top, right, bottom = bounds
            beyond = right < 0 or bottom < 0 or left > width or top > height
            if beyond or (not isinstance(self.shape, Stroke) and self._only_touches(bounds, height, width)):
                msg = (
                    f"{self.where} must lie in its image of {width} x {height} pixels, but goes from ({left:g}, "
                    f"{top:g}) to ({right:g}, {bottom:g}). Mark it on this very image, or take the mark away."
                )
                raise ValueError(msg)

    def draw(self, height: int, width: int) -> Region:
        """Return its pixels in an image of the given size.

        Raises:
            ValueError: If it marks no pixel of the image.
        """
        region = self.shape.draw(height, width)
        if not region.inside.any():
            msg = f"{self.where} marks no pixel of its image of {width} x {height}. Mark it again, or take it away."
            raise ValueError(msg)
        return region

    @staticmethod
    def _only_touches(bounds: tuple[float, float, float, float], height: int, width: int) -> bool:
        left, top, right, bottom = bounds
        return right <= 0 or bottom <= 0 or left >= width or top >= height


def describe_kind(marks: Sequence[Mark]) -> Kind:
    """Return the kind of an image: that of its most precise mark, ``image`` without a mark."""
    kinds = {mark.kind for mark in marks}
    order: tuple[Kind, ...] = ("mask", "box", "scribble", "point")
    return next((kind for kind in order if kind in kinds), "image")


def draw_marks(marks: Sequence[Mark], height: int, width: int) -> np.ndarray:
    """Return what marks say of each pixel, (H, W) uint8.

    0: good. 255: defect. 254: unknown. k from 1 to 253: at least one pixel of box k is defective. The largest box is
    number 1, and where boxes overlap a pixel belongs to the smallest. Once some pixels of a box are certain, its other
    pixels are unknown. A click or a line outside all boxes and masks makes everything that is not marked unknown.
    Without any mark the image is one box.
    """
    if not marks:
        return np.full((height, width), WHOLE_IMAGE, dtype=np.uint8)
    certain = draw_masks(marks, height, width)
    boxes = _draw_boxes([mark for mark in marks if mark.kind == "box"], height, width)
    known = certain | (boxes > 0)
    rest = GOOD
    reach = max(1, round(_RADIUS_SHARE * min(height, width)))
    strokes = [mark.draw(height, width) for mark in marks if mark.kind in {"scribble", "point"}]
    for stroke in strokes:
        if (stroke.inside & ~known[stroke.rows, stroke.columns]).any():
            rest = UNKNOWN
    for stroke in strokes:
        _paint_disc(certain, stroke, reach)
    settled = np.zeros(256, dtype=bool)
    settled[boxes[certain]] = True
    numbers = np.full(256, UNKNOWN, dtype=np.uint8)
    open_boxes = [number for number in np.unique(boxes) if number and not settled[number]]
    numbers[open_boxes] = np.arange(1, len(open_boxes) + 1)
    numbers[0] = rest
    found = numbers[boxes]
    found[certain] = DEFECT
    return found


def draw_masks(marks: Sequence[Mark], height: int, width: int) -> np.ndarray:
    """Return the pixels (H, W) bool that masks, polygons and run lengths mark."""
    inside = np.zeros((height, width), dtype=bool)
    for mark in marks:
        if mark.kind == "mask":
            region = mark.draw(height, width)
            inside[region.rows, region.columns] |= region.inside
    return inside


def _draw_boxes(boxes: Sequence[Mark], height: int, width: int) -> np.ndarray:
    """Return the number of the smallest box that each pixel lies in, 0 where there is none, (H, W) uint8.

    The smaller a box, the larger its number: the largest number is the one that stays when marks are reduced.
    """
    canvas = np.zeros((height, width), dtype=np.uint8)
    regions = [box.draw(height, width) for box in boxes]
    areas = [int(region.inside.sum()) for region in regions]
    order = sorted(range(len(regions)), key=lambda place: (-areas[place], -place))
    for number, position in enumerate(order, start=1):
        region = regions[position]
        canvas[region.rows, region.columns][region.inside] = number
    return canvas


def _paint_disc(canvas: np.ndarray, stroke: Region, radius: int) -> None:
    """Mark all that lies within a radius of a stroke's pixels."""
    import cv2

    spans = []
    for span, length in zip((stroke.rows, stroke.columns), canvas.shape, strict=True):
        spans.append(slice(max(0, span.start - radius), min(length, span.stop + radius)))
    rows, columns = spans
    around = np.ones((rows.stop - rows.start, columns.stop - columns.start), dtype=np.uint8)
    around[
        stroke.rows.start - rows.start : stroke.rows.stop - rows.start,
        stroke.columns.start - columns.start : stroke.columns.stop - columns.start,
    ] = ~stroke.inside
    distance = cv2.distanceTransform(around, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    canvas[rows, columns] |= distance <= radius + _ROUNDING
