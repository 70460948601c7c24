"""The edits of an image's marks. Each edit returns new marks and leaves the old ones unchanged."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from anomalib_synth.report.image_marks import check_type, new_shape
from anomalib_synth.store.rules import FLAG, FieldRule, RecordSchema, is_number, or_none, whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from anomalib_synth.report.image_marks import ImageMarks

    Points = list[list[float]]

_MOST_POINTS = 20_000
_POINTS = FieldRule(
    f"1 to {_MOST_POINTS} points [x, y] in pixels",
    lambda value: (
        type(value) is list
        and 1 <= len(value) <= _MOST_POINTS
        and all(
            type(p) is list and len(p) == 2 and is_number(p[0], -1e6, 1e6) and is_number(p[1], -1e6, 1e6) for p in value
        )
    ),
)
_RADIUS = FieldRule("a number of pixels > 0 and <= 4096", lambda value: is_number(value, 0, 4096) and value > 0)
_KIND = FieldRule("text", lambda value: type(value) is str)
EDITS = {
    "box": RecordSchema(name="a box", rules={"kind": _KIND, "points": _POINTS}),
    "scribble": RecordSchema(name="a scribble", rules={"kind": _KIND, "points": _POINTS}),
    "brush": RecordSchema(name="a stroke", rules={"kind": _KIND, "points": _POINTS, "radius": _RADIUS, "erase": FLAG}),
    "accept": RecordSchema(name="an accepted outline", rules={"kind": _KIND, "shape": or_none(whole(0))}),
    "remove": RecordSchema(name="a removal", rules={"kind": _KIND, "shape": or_none(whole(0)), "at": or_none(_POINTS)}),
    "rename": RecordSchema(name="another type", rules={"kind": _KIND, "shape": or_none(whole(0))}),
    "no_defect": RecordSchema(name="a word on the whole image", rules={"kind": _KIND, "value": FLAG}),
}


def find_fault(edit: Any) -> str:
    """Return what is wrong with an edit, as a clause; ``""`` if nothing is."""
    if type(edit) is not dict or type(edit.get("kind")) is not str or edit["kind"] not in EDITS:
        return f"must be an object whose `kind` is one of {', '.join(EDITS)}"
    return EDITS[edit["kind"]].find_fault(edit)


def apply_edit(
    marks: ImageMarks, edit: dict[str, Any], *, type_name: str, outline: Callable[[int | None], np.ndarray | None]
) -> ImageMarks:
    """Return the marks after an edit.

    Args:
        marks: The marks.
        edit: An edit in which :func:`find_fault` finds nothing.
        type_name: The type of defect of new marks.
        outline: Returns the outline (H, W) bool that is proposed within a shape, or in the whole image for None; it
            returns None if there is no proposal.

    Raises:
        ValueError: If the image has no mark to which the edit applies.
    """
    kind = edit["kind"]
    if kind == "no_defect":
        return _say_no_defect(marks, value=edit["value"])
    if edit.get("shape") is not None and edit["shape"] >= len(marks.shapes):
        msg = f"`shape` must be one of the {len(marks.shapes)} marks of this image, got {edit['shape']}. Look again."
        raise ValueError(msg)
    if kind == "remove":
        return _remove(marks, edit["shape"], edit["at"])
    name = check_type(type_name)
    if kind == "rename":
        return _rename(marks, edit["shape"], name)
    marks = replace(marks, no_defect=False)
    if kind == "brush":
        drawn = draw_stroke(marks.mask.shape, edit["points"], edit["radius"])
        return replace(marks, mask=marks.mask & ~drawn) if edit["erase"] else _add(marks, drawn, name)
    if kind == "accept":
        return _accept(marks, edit["shape"], name, outline(edit["shape"]))
    height, width = marks.mask.shape
    if kind == "box":
        shape = _make_box(_clip(edit["points"], width, height), name)
    else:
        shape = _make_scribble(_clip(edit["points"], width - 1, height - 1), name)
    return replace(marks, document=marks.with_shapes([*marks.shapes, shape]))


def draw_stroke(shape: tuple[int, ...], points: Points, radius: float) -> np.ndarray:
    """Return the pixels that a round brush covers along a line through points, (H, W) bool."""
    import cv2

    path = np.floor(np.asarray(points, dtype=float)).astype(int)
    reach = int(np.ceil(radius)) + 1
    left, top = np.clip(path.min(0) - reach, 0, (shape[1], shape[0])).tolist()
    right, bottom = np.clip(path.max(0) + reach + 1, 0, (shape[1], shape[0])).tolist()
    drawn = np.zeros(shape, bool)
    if left >= right or top >= bottom:
        return drawn
    around = np.ones((bottom - top + 2 * reach, right - left + 2 * reach), np.uint8)  # the line may leave the image
    line = np.concatenate([path, path[-1:]]) - (left - reach, top - reach)  # at least two points
    cv2.polylines(around, [line.astype(np.int32)[:, None]], isClosed=False, color=0)
    near = cv2.distanceTransform(around, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) <= radius
    drawn[top:bottom, left:right] = near[reach:-reach, reach:-reach]
    return drawn


def _say_no_defect(marks: ImageMarks, *, value: bool) -> ImageMarks:
    if value and not marks.is_empty:
        msg = "This image has marks. Delete them first, then say that it has no defect."
        raise ValueError(msg)
    return replace(marks, no_defect=value)


def _remove(marks: ImageMarks, shape: int | None, at: Points | None) -> ImageMarks:
    if shape is not None:
        shapes = [each for place, each in enumerate(marks.shapes) if place != shape]
        return replace(marks, document=marks.with_shapes(shapes))
    if at is None:
        return replace(marks, mask=np.zeros_like(marks.mask))
    import cv2

    _, labels = cv2.connectedComponents(marks.mask.astype(np.uint8), connectivity=8)
    height, width = marks.mask.shape
    x, y = min(max(int(at[0][0]), 0), width - 1), min(max(int(at[0][1]), 0), height - 1)
    if not labels[y, x]:
        msg = f"`at` must be within an outline, got x = {at[0][0]:g}, y = {at[0][1]:g}. Point at it."
        raise ValueError(msg)
    return replace(marks, mask=marks.mask & (labels != labels[y, x]))


def _rename(marks: ImageMarks, shape: int | None, name: str) -> ImageMarks:
    if shape is None:
        return replace(marks, document=marks.with_mask_type(name)) if marks.mask.any() else marks
    shapes = [{**each, "label": name} if place == shape else each for place, each in enumerate(marks.shapes)]
    return replace(marks, document=marks.with_shapes(shapes))


def _accept(marks: ImageMarks, shape: int | None, name: str, outline: np.ndarray | None) -> ImageMarks:
    if outline is None:
        msg = "There is no outline to accept here. Draw it with the brush, or keep the mark as it is."
        raise ValueError(msg)
    if shape is not None:
        name = marks.shapes[shape]["label"] or name
        marks = _remove(marks, shape, None)
    return _add(marks, outline, name)


def _add(marks: ImageMarks, inside: np.ndarray, name: str) -> ImageMarks:
    """Return the marks with more pixels. All outlines of an image have one type, that of the first one."""
    document = marks.document if marks.mask.any() else marks.with_mask_type(name)
    return replace(marks, mask=marks.mask | inside, document=document)


def _clip(points: Points, right: int, bottom: int) -> Points:
    return [[min(max(float(x), 0.0), float(right)), min(max(float(y), 0.0), float(bottom))] for x, y in points]


def _make_box(points: Points, name: str) -> dict[str, Any]:
    (left, top), (right, bottom) = np.min(points, 0).tolist(), np.max(points, 0).tolist()
    if right - left < 1 or bottom - top < 1:
        msg = (
            f"A box must lie within the image and be at least 1 pixel a side, got {right - left:g} x {bottom - top:g}. "
            "Draw it larger."
        )
        raise ValueError(msg)
    return new_shape("rectangle", [[left, top], [right, bottom]], name)


def _make_scribble(points: Points, name: str) -> dict[str, Any]:
    different = [point for place, point in enumerate(points) if place == 0 or point != points[place - 1]]
    return new_shape("linestrip" if len(different) > 1 else "point", different, name)
