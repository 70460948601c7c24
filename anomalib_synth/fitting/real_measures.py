"""Measures of a user's real defects, from any annotation that is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from anomalib_synth.defects import DEFECT, UNKNOWN, list_defects
from anomalib_synth.fitting.defect_measures import outline_in_box, to_vector
from anomalib_synth.fitting.suggestion import measure_on_part
from anomalib_synth.images import (
    ImageReader,
    UnreadableImageError,
    read_bytes,
)

if TYPE_CHECKING:
    from pathlib import Path

    from anomalib_synth.defects import RealDefect
    from anomalib_synth.generators.prepared import PreparedNormals


@dataclass(frozen=True, kw_only=True)
class RealMeasures:
    """The real defects of a folder, measured.

    Args:
        measured: One mapping a defect; see :func:`.defect_measures.measure_defect`.
        left_out: Reason by name of the images that were left out.
    """

    measured: list[dict[str, float]]
    left_out: dict[str, str]

    @property
    def vectors(self) -> list[np.ndarray]:
        """The measures as vectors."""
        return [to_vector(each) for each in self.measured]


def measure_real_defects(
    defects: Path, masks: Path | None, reader: ImageReader, prepared: PreparedNormals
) -> RealMeasures:
    """Measure the real defects of a folder, one for each type on each image.

    Raises:
        ValueError: If none has an outline, a line or a box.
    """
    measured, left_out = [], {}
    for defect in list_defects(defects, marks=masks, argument="masks"):
        try:
            pixels = reader.decode(read_bytes(defect.image))
        except UnreadableImageError as error:
            left_out[defect.image.name] = str(error)
            continue
        image = pixels.astype(np.float32) / 255
        found = [shrink(mask, image.shape[:2]) for mask in _find_masks(defect)]
        if not found:
            left_out[defect.image.name] = "no outline and no box says where its defect is"
        measured += [measure_on_part(image, mask, prepared) for mask in _outline(defect, image, found)]
    if not measured:
        msg = (
            f"`defects` must have a mask, an outline, a line or a box for at least one image, got none in "
            f"{str(defects)!r}. Mark them: anomalib-synth review --images {defects}"
        )
        raise ValueError(msg)
    return RealMeasures(measured=measured, left_out=left_out)


def _find_masks(defect: RealDefect) -> list[np.ndarray]:
    """Return what is marked (H, W) bool: each type's outline, else each box, else what a line covers."""
    if defect.kind == "mask":
        return [mask for mask in defect.read_masks().values() if mask.any()]
    marks = defect.read_marks()
    if defect.kind == "box":
        return [marks == number for number in np.unique(marks) if number not in {0, UNKNOWN, DEFECT}]
    return [marks == DEFECT] if defect.kind == "scribble" else []


def _outline(defect: RealDefect, image: np.ndarray, found: list[np.ndarray]) -> list[np.ndarray]:
    return [outline_in_box(image, mask) for mask in found] if defect.kind == "box" else found


def shrink(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a mask (H, W) bool at another size; what is thin stays when it gets smaller."""
    given = torch.from_numpy(np.ascontiguousarray(mask))[None, None].float()
    smaller = tuple(min(own, wanted) for own, wanted in zip(mask.shape, size, strict=True))
    return (F.interpolate(F.adaptive_max_pool2d(given, smaller), size, mode="nearest") > 0)[0, 0].numpy()
