"""LabelMe's JSON, one file per image: rectangle, polygon, circle, point, points, line, linestrip, mask."""

from __future__ import annotations

import base64
import binascii
import math
from typing import Any, Literal

import numpy as np

from anomalib_synth.defects.annotation_files import LABEL, AnnotationFile, MarkedImage
from anomalib_synth.defects.marks import Mark
from anomalib_synth.defects.shapes import Bitmap, Box, Ellipse, Polygon, Shape, Stroke
from anomalib_synth.images import UnreadableImageError, allow_large_images, decode_image
from anomalib_synth.store.rules import FieldRule, RecordSchema, is_text, or_none, show, whole

UNMARKED = "unmarked"  # true where the last shape was deleted on the marking page: neither defective nor good
_TYPE_FLAG = "type"
_SIDE = or_none(whole(1, 2**17))
_FILE = RecordSchema(
    name="a LabelMe file",
    rules={
        "shapes": FieldRule("a list", lambda value: type(value) is list),
        "flags": FieldRule("an object, or null", lambda value: value is None or type(value) is dict),
        "imageHeight": _SIDE,
        "imageWidth": _SIDE,
    },
    optional=frozenset({"flags", "imageHeight", "imageWidth"}),
    open_ended=True,
)
_SHAPE = RecordSchema(
    name="a shape",
    rules={
        "label": or_none(LABEL),
        "points": FieldRule("a list of points", lambda value: type(value) is list and bool(value)),
        "shape_type": FieldRule("text, or null", lambda value: value is None or is_text(value)),
        "mask": FieldRule("text, or null", lambda value: value is None or type(value) is str),
    },
    optional=frozenset({"label", "shape_type", "mask"}),
    open_ended=True,
)
_LEAST = {  # points of each type of shape
    "polygon": 3, "rectangle": 2, "circle": 2, "point": 1, "points": 1, "line": 2, "linestrip": 2, "mask": 2,
}  # fmt: skip
_EXACT = {"circle": {2}, "point": {1}, "line": {2}, "mask": {2}, "rectangle": {2, 4}}


def is_labelme(content: Any) -> bool:
    """Return whether the content of a JSON file looks like LabelMe's."""
    return type(content) is dict and "shapes" in content


def says_nothing(content: dict[str, Any]) -> bool:
    """Return whether a file calls its image neither defective nor good: its last shape was deleted on our page."""
    return content.get(UNMARKED) is True and not content["shapes"] and not _find_type(content)


def says_good(content: dict[str, Any]) -> bool:
    """Return whether a file says that its image has no defect: LabelMe's file without a shape means that."""
    return not content["shapes"] and not _find_type(content) and content.get(UNMARKED) is not True


def _find_type(content: dict[str, Any]) -> str:
    named = (content.get("flags") or {}).get(_TYPE_FLAG)
    return named.strip() if type(named) is str else ""


def read_labelme(file: AnnotationFile, content: Any) -> MarkedImage:
    """Read the content of a LabelMe file.

    The flag ``type`` names the type of the image's defects; a file without shapes beside a mask needs it.

    Args:
        file: Where the content is from.
        content: What the JSON holds.

    Raises:
        ValueError: If it is malformed.
    """
    file.check(_FILE, content, "content")
    named = (content.get("flags") or {}).get(_TYPE_FLAG)
    if type(named) is str and not LABEL.holds(named):
        file.refuse(f"has the flag `{_TYPE_FLAG}` = {show(named)}, which must be {LABEL.says}")
    types = (named.strip(),) if type(named) is str and named.strip() else ()
    height, width = content.get("imageHeight"), content.get("imageWidth")
    marks = []
    for number, row in enumerate(content["shapes"]):
        file.check(_SHAPE, row, f"shape {number}")
        where, label = f"Shape {number} of {str(file.path)!r}", (row.get("label") or "").strip()
        kind, shapes = _read_shape(file, row, number)
        marks += [Mark(kind=kind, shape=shape, where=where, label=label) for shape in shapes]
    size = (height, width) if height and width else None
    return MarkedImage(name="", size=size, marks=marks, types=types)


def _read_shape(
    file: AnnotationFile, row: dict[str, Any], number: int
) -> tuple[Literal["mask", "box", "scribble", "point"], list[Shape]]:
    """Return what a shape says, and where it is."""
    name = row.get("shape_type") or "polygon"
    if name not in _LEAST:
        file.refuse(f"has shape {number} of the type {show(name)}, which must be one of {', '.join(_LEAST)}")
    flat = [
        value for point in row["points"] for value in (point if type(point) is list and len(point) == 2 else [None])
    ]
    points = file.to_points(flat, f"shape {number} with the points", _LEAST[name])
    if name in _EXACT and len(points) not in _EXACT[name]:
        counts = " or ".join(map(str, sorted(_EXACT[name])))
        file.refuse(f"has shape {number}, a {name} of {len(points)} points, which must be {counts}")
    if name in {"point", "points"}:
        return "point", [Stroke(point[None]) for point in points]
    if name in {"line", "linestrip"}:
        return "scribble", [Stroke(points)]
    if name == "mask":
        return "mask", [_read_mask(file, row, number, points)]
    shape = _read_area(name, points)
    if shape is None:
        file.refuse(f"has shape {number}, a {name} without area")
    return ("box" if name == "rectangle" else "mask"), [shape]


def _read_area(name: str, points: np.ndarray) -> Shape | None:
    """Return a circle, rectangle or polygon, None if it has no area."""
    if name == "circle":
        radius = math.dist(*points)
        return Ellipse(float(points[0, 0]), float(points[0, 1]), (radius, radius)) if radius > 0 else None
    if name == "rectangle":
        (left, top), (right, bottom) = points.min(0).tolist(), points.max(0).tolist()
        return Box(left, top, right, bottom) if left < right and top < bottom else None
    polygon = Polygon(points)
    return None if polygon.is_flat else polygon


def _read_mask(file: AnnotationFile, row: dict[str, Any], number: int, points: np.ndarray) -> Bitmap:
    """Return the pixels of a shape of the type mask: a PNG in base64, from its first point to its second."""
    what = f"has shape {number}, whose `mask` must be a PNG in base64"
    try:
        data = base64.b64decode(row.get("mask") or "", validate=True)
        with allow_large_images():
            pixels = decode_image(data).max(2) > 0
    except (binascii.Error, ValueError) as error:
        reason = str(error) if isinstance(error, UnreadableImageError) else "it is no base64"
        file.refuse(f"{what}, but {reason}", error)
    (left, top), (right, bottom) = np.floor(points).astype(int).tolist()
    if pixels.shape not in {(bottom - top + 1, right - left + 1), (bottom - top, right - left)}:
        size, place = f"{pixels.shape[1]} x {pixels.shape[0]}", f"{right - left + 1} x {bottom - top + 1}"
        file.refuse(f"{what}, as large as its two points say, but it has {size} pixels for {place}")
    if not pixels.any():
        file.refuse(f"has shape {number}, whose `mask` marks no pixel")
    return Bitmap(left, top, pixels)
