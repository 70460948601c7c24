"""A real defect: an image, its type, and how it is marked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from anomalib_synth.defects.marks import Kind, Mark, draw_marks, draw_masks
from anomalib_synth.images import read_size

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class RealDefect:
    """One image with a defect.

    Args:
        image: The image.
        family: Type of the defect: the label that most of its marks have, else the name of its folder.
        kind: What is known of its place: ``mask`` (pixels), ``box``, ``scribble`` (a line), ``point`` (a click), or
            ``image`` (nothing). With marks of several kinds, the first of these.
        marks: The marks, each with its label.
        files: The files it was read from: the image, masks, annotations, names of classes.
    """

    image: Path
    family: str
    kind: Kind
    marks: tuple[Mark, ...] = field(default=(), repr=False, compare=False)
    files: tuple[Path, ...] = field(default=(), repr=False, compare=False)

    def read_marks(self) -> np.ndarray:
        """Return what is known of each pixel, (H, W) uint8 at the size of the upright image.

        0 is good, 255 is a defect, 254 is unknown, and 1 to 253 are numbers of boxes, in each of which at least one
        pixel is defective. An image without any mark is one box. See :func:`.marks.draw_marks`.

        Raises:
            ValueError: If the image or a mask cannot be read, or a mark is not on the image.
        """
        return draw_marks(self.marks, *self._size())

    def read_masks(self) -> dict[str, np.ndarray]:
        """Return a mask (H, W) bool by type of defect, of what is outlined by pixels (``kind`` of a mark ``mask``).

        Raises:
            ValueError: As :meth:`read_marks`.
        """
        height, width = self._size()
        labels = dict.fromkeys(mark.label or self.family for mark in self.marks if mark.kind == "mask")
        return {
            label: draw_masks([mark for mark in self.marks if (mark.label or self.family) == label], height, width)
            for label in labels
        }

    def _size(self) -> tuple[int, int]:
        height, width, _ = read_size(self.image, "defects")
        return height, width
