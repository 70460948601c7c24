"""COCO instances: boxes, polygons, and run lengths, compressed or not."""

from __future__ import annotations

from typing import Any

import numpy as np

from anomalib_synth.defects.annotation_files import FILE_NAME, LABEL, AnnotationFile, MarkedImage
from anomalib_synth.defects.marks import Mark
from anomalib_synth.defects.run_lengths import RunLengths, decompress, find_fault
from anomalib_synth.defects.shapes import Box, Polygon
from anomalib_synth.store.rules import FieldRule, RecordSchema, is_number, is_text, or_none, show, whole

_MAX_SIDE = 2**17
_ID = FieldRule("a whole number, or text", lambda value: type(value) is int or is_text(value))
_SIDE = or_none(whole(1, _MAX_SIDE))
_BOX = FieldRule(
    "x, y, width and height, four numbers with width and height above 0, or null",
    lambda value: (
        value is None
        or value == []
        or (type(value) is list and len(value) == 4 and all(map(is_number, value)) and min(value[2:]) > 0)
    ),
)
_SEGMENTATION = FieldRule(
    "a list of polygons, run lengths, or null", lambda value: value is None or type(value) in {list, dict}
)
_FILE = RecordSchema(
    name="a COCO file",
    rules={
        name: FieldRule("a list", lambda value: type(value) is list) for name in ("images", "annotations", "categories")
    },
    optional=frozenset({"categories"}),
    open_ended=True,
)
_IMAGE = RecordSchema(
    name="an image",
    rules={"id": _ID, "file_name": FILE_NAME, "height": _SIDE, "width": _SIDE},
    optional=frozenset({"height", "width"}),
    open_ended=True,
)
_CATEGORY = RecordSchema(name="a category", rules={"id": _ID, "name": LABEL}, open_ended=True)
_ANNOTATION = RecordSchema(
    name="an annotation",
    rules={"image_id": _ID, "category_id": or_none(_ID), "bbox": _BOX, "segmentation": _SEGMENTATION},
    optional=frozenset({"category_id", "bbox", "segmentation"}),
    open_ended=True,
    relation=lambda row: "" if row.get("segmentation") or row.get("bbox") else "has neither `segmentation` nor `bbox`",
)


def is_coco(content: Any) -> bool:
    """Return whether the content of a JSON file looks like COCO's."""
    return type(content) is dict and "images" in content and "annotations" in content


def read_coco(file: AnnotationFile, content: Any) -> list[MarkedImage]:
    """Read the content of a COCO file.

    Args:
        file: Where the content is from.
        content: What the JSON holds.

    Returns:
        Its images. The box of an annotation counts where there is no segmentation.

    Raises:
        ValueError: If it is malformed.
    """
    file.check(_FILE, content, "content")
    types = {}
    for number, row in enumerate(content.get("categories", ())):
        file.check(_CATEGORY, row, f"category {number}")
        types[row["id"]] = row["name"].strip()
    images: dict[Any, dict[str, Any]] = {}
    for number, row in enumerate(content["images"]):
        file.check(_IMAGE, row, f"image {number}")
        if row["id"] in images:
            file.refuse(f"has two images with the id {show(row['id'])}")
        images[row["id"]] = row
    marks: dict[Any, list[Mark]] = {key: [] for key in images}
    sizes: dict[Any, tuple[int, int] | None] = {key: _size_of(row) for key, row in images.items()}
    for number, row in enumerate(content["annotations"]):
        file.check(_ANNOTATION, row, f"annotation {number}")
        image, category = row["image_id"], row.get("category_id")
        if image not in images:
            file.refuse(f"has annotation {number} of image {show(image)}, which `images` does not have")
        if types and category is not None and category not in types:
            file.refuse(f"has annotation {number} of category {show(category)}, which `categories` does not have")
        found, size = _read_annotation(file, row, number, sizes[image], types.get(category, ""))
        marks[image] += found
        sizes[image] = size
    return [MarkedImage(name=row["file_name"], size=sizes[key], marks=marks[key]) for key, row in images.items()]


def _size_of(row: dict[str, Any]) -> tuple[int, int] | None:
    height, width = row.get("height"), row.get("width")
    return (height, width) if height and width else None


def _read_annotation(
    file: AnnotationFile, row: dict[str, Any], number: int, size: tuple[int, int] | None, label: str
) -> tuple[list[Mark], tuple[int, int] | None]:
    """Return the marks of an annotation, and the size of its image, which run lengths may be the first to tell."""
    where = f"Annotation {number} of {str(file.path)!r}"
    segmentation = row.get("segmentation")
    if not segmentation:
        left, top, width, height = (float(value) for value in row["bbox"])
        box = Box(left, top, left + width, top + height)
        return [Mark(kind="box", shape=box, where=where, label=label)], size
    if type(segmentation) is dict:
        lengths = _read_run_lengths(file, segmentation, number)
        own = lengths.height, lengths.width
        if size is not None and size != own:
            file.refuse(
                f"has annotation {number} with run lengths for {own[1]} x {own[0]} pixels, but its image has "
                f"{size[1]} x {size[0]}"
            )
        return [Mark(kind="mask", shape=lengths, where=where, label=label)], own
    polygons = [Polygon(file.to_points(each, f"annotation {number} with the polygon", 3)) for each in segmentation]
    if any(polygon.is_flat for polygon in polygons):
        file.refuse(f"has annotation {number} with a polygon whose corners all lie on one line, so it has no area")
    return [Mark(kind="mask", shape=polygon, where=where, label=label) for polygon in polygons], size


def _read_run_lengths(file: AnnotationFile, segmentation: dict[str, Any], number: int) -> RunLengths:
    size, counts = segmentation.get("size"), segmentation.get("counts")
    side = whole(1, _MAX_SIDE)
    if type(size) is not list or len(size) != 2 or not all(map(side.holds, size)):
        file.refuse(
            f"has annotation {number} with the size {show(size)} of run lengths, which must be height and width"
        )
    if type(counts) is str:
        try:
            counts = decompress(counts)
        except ValueError as error:
            file.refuse(f"has annotation {number}, which {error}", error)
    if type(counts) is not list or any(type(count) is not int for count in counts):
        file.refuse(
            f"has annotation {number} with the run lengths {show(counts)}, which must be whole numbers, or text"
        )
    if fault := find_fault(counts, *size):
        file.refuse(f"has annotation {number}, which {fault}")
    return RunLengths(np.array(counts, dtype=np.int64), *size)
