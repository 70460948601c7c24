"""CVAT for images 1.1, one XML file: box, polygon, polyline, points, ellipse, mask, tag."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np

from anomalib_synth.defects.annotation_files import FILE_NAME, LABEL, AnnotationFile, MarkedImage
from anomalib_synth.defects.marks import Mark
from anomalib_synth.defects.run_lengths import RunLengths, find_fault
from anomalib_synth.defects.shapes import Box, Ellipse, Polygon, Shape, Stroke
from anomalib_synth.store.rules import show

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

Found = tuple[Literal["mask", "box", "scribble", "point"], list[Shape]]
_MAX_SIDE = 2**17
_LONGEST_NUMBER = 40


def read_cvat(file: AnnotationFile) -> list[MarkedImage]:
    """Read a file of CVAT for images 1.1.

    A rotated box still counts as a box: something within it is defective. A tag names the type of an image whose defect
    is not marked.

    Raises:
        ValueError: If it is malformed, or of another CVAT format.
    """
    root = file.read_xml()
    if root.tag != "annotations":
        file.refuse(f"is no CVAT file: it begins with <{show(root.tag)[1:-1]}>, which must be <annotations>")
    if root.find("track") is not None:
        file.refuse("is CVAT for video. Export it as `CVAT for images 1.1`")
    return [_read_image(file, element, number) for number, element in enumerate(root.findall("image"))]


def _read_image(file: AnnotationFile, element: Element, number: int) -> MarkedImage:
    name = element.get("name", "")
    if not FILE_NAME.holds(name):
        file.refuse(f"has image {number} with the name {show(name)}, which must be {FILE_NAME.says}")
    size = None
    if element.get("height") is not None or element.get("width") is not None:
        height, width = (_whole(file, element, side, f"image {show(name)}") for side in ("height", "width"))
        if not (0 < height <= _MAX_SIDE and 0 < width <= _MAX_SIDE):
            file.refuse(f"has image {show(name)} of {width} x {height} pixels")
        size = height, width
    marks, types = [], []
    for position, child in enumerate(element):
        label = child.get("label", "").strip()
        if not LABEL.holds(label):
            file.refuse(f"has a label {show(label)} in image {show(name)}, which must be {LABEL.says}")
        if child.tag == "tag":
            types.append(label)
            continue
        what = f"{show(child.tag)[1:-1]} {position} of image {show(name)}"
        if child.tag not in _READERS:
            file.refuse(f"has {what}, which must be one of {', '.join(_READERS)}, tag")
        kind, shapes = _READERS[child.tag](file, child, what)
        where = f"{what[0].upper()}{what[1:]} in {str(file.path)!r}"
        marks += [Mark(kind=kind, shape=shape, where=where, label=label) for shape in shapes]
    return MarkedImage(name=name, size=size, marks=marks, types=tuple(types))


def _read_box(file: AnnotationFile, element: Element, what: str) -> Found:
    left, top, right, bottom = (_number(file, element, side, what) for side in ("xtl", "ytl", "xbr", "ybr"))
    if left >= right or top >= bottom:
        file.refuse(f"has {what} without area")
    angle = math.radians(_number(file, element, "rotation", what, default=0.0))
    if angle == 0:
        return "box", [Box(left, top, right, bottom)]
    centre = np.array([left + right, top + bottom]) / 2
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]]) - centre
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])  # clockwise; y goes down
    return "box", [Polygon(corners @ turn + centre)]


def _read_polygon(file: AnnotationFile, element: Element, what: str) -> Found:
    polygon = Polygon(_points(file, element, what, 3))
    if polygon.is_flat:
        file.refuse(f"has {what} without area: its corners all lie on one line")
    return "mask", [polygon]


def _read_polyline(file: AnnotationFile, element: Element, what: str) -> Found:
    return "scribble", [Stroke(_points(file, element, what, 2))]


def _read_points(file: AnnotationFile, element: Element, what: str) -> Found:
    return "point", [Stroke(point[None]) for point in _points(file, element, what, 1)]


def _read_ellipse(file: AnnotationFile, element: Element, what: str) -> Found:
    x, y, across, down = (_number(file, element, name, what) for name in ("cx", "cy", "rx", "ry"))
    if across <= 0 or down <= 0:
        file.refuse(f"has {what} without area")
    return "mask", [Ellipse(x, y, (across, down), _number(file, element, "rotation", what, default=0.0))]


def _read_mask(file: AnnotationFile, element: Element, what: str) -> Found:
    left, top, width, height = (_whole(file, element, name, what) for name in ("left", "top", "width", "height"))
    if not (0 < height <= _MAX_SIDE and 0 < width <= _MAX_SIDE):
        file.refuse(f"has {what} of {width} x {height} pixels")
    texts = [text.strip() for text in element.get("rle", "").split(",")]
    if not all(text.isdecimal() and len(text) <= _LONGEST_NUMBER for text in texts):
        file.refuse(f"has {what} with the run lengths {show(element.get('rle'))}, which must be whole numbers")
    counts = [int(text) for text in texts]
    if fault := find_fault(counts, height, width):
        file.refuse(f"has {what}, which {fault}")
    return "mask", [RunLengths(np.array(counts, dtype=np.int64), height, width, left, top, by_columns=False)]


_READERS = {
    "box": _read_box,
    "polygon": _read_polygon,
    "polyline": _read_polyline,
    "points": _read_points,
    "ellipse": _read_ellipse,
    "mask": _read_mask,
}


def _number(file: AnnotationFile, element: Element, name: str, what: str, default: float | None = None) -> float:
    text = element.get(name)
    if text is None and default is not None:
        return default
    return float(file.to_points([*_parse([text]), 0], f"{what} with {name} =", 1)[0, 0])


def _whole(file: AnnotationFile, element: Element, name: str, what: str) -> int:
    number = _number(file, element, name, what)
    if not number.is_integer():
        file.refuse(f"has {what} with {name} = {number:g}, which must be a whole number")
    return int(number)


def _points(file: AnnotationFile, element: Element, what: str, least: int) -> np.ndarray:
    pairs = [pair.split(",") for pair in element.get("points", "").split(";")]
    values = [value for pair in pairs for value in (_parse(pair) if len(pair) == 2 else [None])]
    return file.to_points(values, f"{what} with the points", least)


def _parse(texts: list[str | None] | list[str]) -> list[float | None]:
    """Return texts as numbers, None for a text that is no number."""
    found: list[float | None] = []
    for text in texts:
        try:
            found.append(float(text or "") if len(text or "") <= _LONGEST_NUMBER else None)
        except ValueError:
            found.append(None)
    return found
