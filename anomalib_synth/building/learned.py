"""Converted copies of the real defects that train a model, each with its marks in a LabelMe file beside it."""

from __future__ import annotations

import base64
import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np

from anomalib_synth.defects.annotation_files import LABEL
from anomalib_synth.defects.shapes import Stroke
from anomalib_synth.images import read_bytes
from anomalib_synth.store import encode_png
from anomalib_synth.store.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from anomalib_synth.defects import RealDefect
    from anomalib_synth.images import ImageReader


def write_learned(defects: Sequence[RealDefect], folder: Path, reader: ImageReader) -> list[Path]:
    """Write 8-bit copies of the images, with masks, boxes, clicks, lines and types of the defects beside them.

    Args:
        defects: The defects.
        folder: Where the copies go; what was there before is deleted.
        reader: The reader of the images.

    Returns:
        The copies, in the same order.
    """
    shutil.rmtree(folder, ignore_errors=True)
    copies = []
    for n, defect in enumerate(defects):
        copies.append(folder / f"{n:04d}.png")
        write_whole(copies[-1], encode_png(reader.decode(read_bytes(defect.image))))
        flags = {"type": defect.family} if LABEL.holds(defect.family) else {}
        content = {"flags": flags, "shapes": [*_describe_masks(defect), *_describe_others(defect)]}
        if any(content.values()):
            write_whole(copies[-1].with_suffix(".json"), json.dumps(content).encode())
    return copies


def _describe_masks(defect: RealDefect) -> Iterator[dict[str, Any]]:
    for label, inside in defect.read_masks().items():
        height, width = inside.shape
        levels = np.repeat(inside[..., None].astype(np.uint8) * 255, 3, axis=2)
        mask = base64.b64encode(encode_png(levels)).decode()
        yield _shape("mask", [[0, 0], [width - 1, height - 1]], label, mask=mask)


def _describe_others(defect: RealDefect) -> Iterator[dict[str, Any]]:
    """Yield clicks, lines and boxes; a rotated box becomes the upright one around it."""
    for mark in defect.marks:
        if isinstance(mark.shape, Stroke):
            yield _shape("point" if mark.kind == "point" else "linestrip", mark.shape.points.tolist(), mark.label)
        elif mark.kind == "box" and mark.shape.bounds is not None:
            left, top, right, bottom = mark.shape.bounds
            yield _shape("rectangle", [[left, top], [right, bottom]], mark.label)


def _shape(kind: str, points: list[list[float]], label: str, **more: str) -> dict[str, Any]:
    return {"label": label if LABEL.holds(label) else "", "shape_type": kind, "points": points, **more}
