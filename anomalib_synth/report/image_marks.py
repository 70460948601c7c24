"""The marks of one image, a mask and the shapes of a LabelMe document, and how they are read and written."""

from __future__ import annotations

import io
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from anomalib_synth.defects.labelme import UNMARKED, says_good
from anomalib_synth.images import find_implausible
from anomalib_synth.store.logs import NotJSON, parse_line
from anomalib_synth.store.rules import TEXT, FieldRule, RecordSchema, is_number, is_text

if TYPE_CHECKING:
    from pathlib import Path

_VERSION = "5.5.0"  # of LabelMe's format
_OWN_FIELDS = {UNMARKED, "version", "flags", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth"}
_MAX_BOXES = 253
_MAX_TYPE = 80
_POINTS = FieldRule(
    "a list of [x, y]",
    lambda value: (
        type(value) is list
        and all(type(p) is list and len(p) == 2 and is_number(p[0]) and is_number(p[1]) for p in value)
    ),
)
_SHAPE = RecordSchema(
    name="a shape",
    rules={"label": TEXT, "points": _POINTS, "shape_type": TEXT},
    optional=frozenset({"shape_type"}),  # older versions leave it out for polygons
    open_ended=True,
)
_DOCUMENT = RecordSchema(
    name="a LabelMe file",
    rules={
        "shapes": FieldRule(
            "a list of shapes", lambda value: type(value) is list and not any(map(_SHAPE.find_fault, value))
        ),
        "flags": FieldRule("an object or null", lambda value: value is None or type(value) is dict),
        "imageHeight": FieldRule("a number or null", lambda value: value is None or is_number(value)),
        "imageWidth": FieldRule("a number or null", lambda value: value is None or is_number(value)),
    },
    optional=frozenset({"flags", "imageHeight", "imageWidth"}),
    open_ended=True,
)


@dataclass(frozen=True, kw_only=True)
class ImageMarks:
    """The marks of one image.

    Args:
        mask: (H, W) bool, at the size of the upright image: pixels that are certainly the defect.
        document: The LabelMe document with its shapes; fields of other programs in it are kept.
        no_defect: Whether a person said that the image has no defect.
    """

    mask: np.ndarray
    document: dict[str, Any]
    no_defect: bool = False

    @property
    def shapes(self) -> list[dict[str, Any]]:
        """The shapes as LabelMe has them; not to be changed."""
        return self.document.get("shapes", [])

    @property
    def mask_type(self) -> str:
        """The type of the defect in the mask, ``""`` if it is that of the folder."""
        found = (self.document.get("flags") or {}).get("type", "")
        return found if type(found) is str else ""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is marked."""
        return not self.shapes and not self.mask.any()

    def with_shapes(self, shapes: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the document with other shapes."""
        return {**self.document, "shapes": shapes}

    def with_mask_type(self, name: str) -> dict[str, Any]:
        """Return the document with another type of the defect in the mask."""
        return {**self.document, "flags": {**(self.document.get("flags") or {}), "type": name}}

    def check(self) -> None:
        """Refuse marks that could not be read back.

        Raises:
            ValueError: If the mask cannot be that of a defect, or there are too many boxes.
        """
        if self.mask.any() and (reason := find_implausible(self.mask)):
            msg = f"Nothing was saved, as the mask cannot be that of a defect: {reason}."
            raise ValueError(msg)
        boxes = sum(shape.get("shape_type") == "rectangle" for shape in self.shapes)
        if boxes > _MAX_BOXES:
            msg = (
                f"An image can have at most {_MAX_BOXES} boxes, so nothing was saved. Outline some of them, or draw "
                "one box around several."
            )
            raise ValueError(msg)


def check_type(name: str) -> str:
    """Return the name of a type of defect, without blanks around it.

    Raises:
        ValueError: If it is empty or too long, or could not be the name of a folder.
    """
    name = name.strip()
    is_odd = not is_text(name) or any(not sign.isprintable() or sign in "/\\" for sign in name) or name.startswith(".")
    if not name or len(name) > _MAX_TYPE or is_odd or name.lower() == "good":
        msg = (
            f"`type` must name the type of defect in 1 to {_MAX_TYPE} letters, as a folder could be called, and not "
            f"'good', got {name[:_MAX_TYPE]!r}. Choose another."
        )
        raise ValueError(msg)
    return name


def new_shape(kind: str, points: list[list[float]], label: str) -> dict[str, Any]:
    """Return a shape as LabelMe writes it."""
    rounded = [[round(x, 2), round(y, 2)] for x, y in points]
    rest: dict[str, Any] = {"group_id": None, "description": "", "flags": {}, "mask": None}
    return {"label": label, "points": rounded, "shape_type": kind, **rest}


def read_document(data: bytes | None, size: tuple[int, int] | None) -> dict[str, Any]:
    """Return the LabelMe document of a file's bytes; an empty one for None.

    Args:
        data: The bytes, None where there is no file.
        size: Height and width of the upright image; None takes any.

    Raises:
        ValueError: If it is not a LabelMe document, or is for an image of another size. The message is a clause that
            follows the file's name.
    """
    if data is None:
        return {}
    found = parse_line(data)
    fault = found.text if isinstance(found, NotJSON) else _DOCUMENT.find_fault(found)
    if fault:
        raise ValueError(fault)
    stated = found.get("imageHeight"), found.get("imageWidth")
    if size is not None and None not in stated and stated != size:
        msg = (
            f"is for an image of {stated[1]:g} x {stated[0]:g} pixels, but the upright image has {size[1]} x {size[0]}"
        )
        raise ValueError(msg)
    return found


def encode_document(marks: ImageMarks, *, file: Path, image: Path, folder_type: str) -> bytes | None:
    """Return the bytes of the LabelMe file, None if it would say nothing more than the mask.

    Args:
        marks: The marks.
        file: Path of the LabelMe file.
        image: The image, which the file names by a relative path.
        folder_type: The type that a mask has if no document names one.
    """
    flags = dict(marks.document.get("flags") or {})
    if not marks.mask.any() or flags.get("type") in {"", folder_type}:
        flags.pop("type", None)
    foreign = {name: value for name, value in marks.document.items() if name not in _OWN_FIELDS}
    if not marks.shapes and not flags and not foreign:
        return None
    height, width = marks.mask.shape
    document = {
        "version": _VERSION,
        "imageData": None,
        **marks.document,
        "flags": flags,
        "shapes": marks.shapes,
        "imagePath": os.path.relpath(image.resolve(), file.parent.resolve()).replace(os.sep, "/"),
        "imageHeight": height,
        "imageWidth": width,
    }
    document.pop(UNMARKED, None)
    if says_good(document):  # deleting marks on this page must not mean "no defect"
        document[UNMARKED] = True
    return json.dumps(document, indent=2, ensure_ascii=False).encode("utf-8", "surrogateescape")


def encode_mask(marks: ImageMarks) -> bytes | None:
    """Return the PNG of the mask, 0 and 255; None if it marks nothing."""
    if not marks.mask.any():
        return None
    buffer = io.BytesIO()
    Image.fromarray(marks.mask.astype(np.uint8) * 255).save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()
