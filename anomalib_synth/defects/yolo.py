"""YOLO's labels, one text file per image: boxes and polygons, as shares of the image's width and height."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from anomalib_synth.defects.annotation_files import LABEL, AnnotationFile, MarkedImage
from anomalib_synth.defects.marks import Mark
from anomalib_synth.defects.shapes import Box, Polygon
from anomalib_synth.store.rules import show

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAX_NAMES_BYTES = 2**20
_BOX_NUMBERS = 5
_LEAST_POLYGON = 7
_SHARES = (-1.0, 2.0)  # a box may reach beyond its image; numbers further out are pixels, not shares


def read_yolo(file: AnnotationFile, names: Mapping[int, str], height: int, width: int) -> MarkedImage:
    """Read the labels of an image: ``class x_centre y_centre width height``, or ``class x y x y x y ...``.

    Args:
        file: The text file; an empty one says that the image is good.
        names: Name by class, as far as known.
        height: Rows of the image.
        width: Columns of the image.

    Raises:
        ValueError: If it is malformed.
    """
    marks = []
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        if not line.strip():
            continue
        texts = line.split()
        if not texts[0].isdecimal() or len(texts[0]) > 9:
            file.refuse(f"has line {number} with the class {show(texts[0])}, which must be a whole number")
        count = len(texts)
        if count != _BOX_NUMBERS and (count < _LEAST_POLYGON or count % 2 == 0):
            file.refuse(
                f"has line {number} of {count} numbers: a class and a box are {_BOX_NUMBERS}, a class and a polygon "
                f"{_LEAST_POLYGON} or more, an odd number"
            )
        shares = [_to_share(file, text, number) for text in texts[1:]]
        where = f"Line {number} of {str(file.path)!r}"
        label = names.get(int(texts[0]), "")
        if count == _BOX_NUMBERS:
            x, y, across, down = shares
            if across <= 0 or down <= 0:
                file.refuse(f"has line {number} with a box without area")
            left, right, top, bottom = x - across / 2, x + across / 2, y - down / 2, y + down / 2
            box = Box(left * width, top * height, right * width, bottom * height)
            marks.append(Mark(kind="box", shape=box, where=where, label=label))
        else:
            polygon = Polygon(np.array(shares).reshape(-1, 2) * (width, height))
            if polygon.is_flat:
                file.refuse(f"has line {number} with a polygon without area: its corners all lie on one line")
            marks.append(Mark(kind="mask", shape=polygon, where=where, label=label))
    return MarkedImage(name="", size=None, marks=marks)


def read_names(file: AnnotationFile) -> dict[int, str]:
    """Read the names of classes: ``names`` in a ``data.yaml``, or a ``classes.txt`` with one name per line.

    Raises:
        ValueError: If the file cannot be read, or a class is no whole number or has no printable name.
    """
    if file.path.suffix == ".txt":
        lines = file.read_text(_MAX_NAMES_BYTES).splitlines()
        names: dict[Any, Any] = dict(enumerate(line.strip() for line in lines))
    else:
        content = file.read_yaml(_MAX_NAMES_BYTES)
        listed = content.get("names") if type(content) is dict else None
        names = dict(enumerate(listed)) if type(listed) is list else listed if type(listed) is dict else {}
    found = {}
    for number, name in names.items():
        is_number = type(number) is int or (type(number) is str and number.isdecimal() and len(number) <= 9)
        if not is_number or not LABEL.holds(name):
            file.refuse(f"names class {show(number)} {show(name)}, which must be a whole number and {LABEL.says}")
        found[int(number)] = name.strip()
    return found


def _to_share(file: AnnotationFile, text: str, number: int) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not _SHARES[0] <= value <= _SHARES[1]:
        file.refuse(
            f"has {show(text)} in line {number}, which must be a share of the image's width or height, from 0 to 1"
        )
    return value
