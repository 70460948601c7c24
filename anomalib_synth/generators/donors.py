"""Real defects of a folder, cut out of their images along the marked pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage

from anomalib_synth.defects import RealDefect, list_defects
from anomalib_synth.images import (
    UnreadableImageError,
    WhitePoint,
    allow_large_images,
    decode_image,
    find_white_point,
    read_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_MARGIN_SHARE = 16  # the margin is the shorter side over this; components closer than half a margin are one defect
_KINDS = {"box": "a box", "scribble": "a line", "point": "a click"}
_REMEDY = (
    "Mark it with `anomalib-synth review --images FOLDER`; with `--detector DIR` the page proposes the outline that a "
    "trained detector sees."
)


@dataclass(frozen=True, kw_only=True)
class Donor:
    """One real defect with the surface around it.

    Args:
        family: Type of the defect, the name of its folder.
        pixels: (3, h, w) uint8, RGB.
        mask: (h, w) bool, where the defect is.
        image_size: Height and width of the image it was cut from, in pixels.
        reaches: (3, 3) bool. [0, 1], [2, 1], [1, 0] and [1, 2] say whether the top, bottom, left and right border of
            its image cuts the defect off; the other entries are False.
    """

    family: str
    pixels: torch.Tensor
    mask: torch.Tensor
    image_size: tuple[int, int]
    reaches: torch.Tensor

    @cached_property
    def length(self) -> float:
        """Side, in pixels, of a square with the area of the defect."""
        return float(self.mask.sum()) ** 0.5


class DefectFolder:
    """Images of real defects and their marked pixels, read on first use and then kept in memory.

    Args:
        defects: The folder, or images. An image's annotation names the type of its defect; without one, the folder it
            lies in does. Folders called ``good`` are skipped.
        masks: A folder of masks, or of annotations that outline pixels, laid out like ``defects``; or one COCO or CVAT
            file. None looks for them as :func:`~anomalib_synth.defects.list_defects` does.
        skip_unmarked: Leave out images whose defects are not outlined by pixels, instead of refusing them.
        argument: What the caller calls ``masks``, for errors.
        white_point: White point of images of more than 8 bits; None finds it in them.
    """

    def __init__(
        self,
        defects: Path | str | Sequence[Path | str],
        masks: Path | str | None = None,
        *,
        skip_unmarked: bool = False,
        argument: str = "masks",
        white_point: float | None = None,
    ) -> None:
        self.defects = Path(defects) if isinstance(defects, (str, Path)) else [Path(file) for file in defects]
        self.masks = None if masks is None else Path(masks)
        self.skip_unmarked = skip_unmarked
        self.argument = argument
        self._given_white = None if white_point is None else WhitePoint.of_value(white_point)

    @cached_property
    def listed(self) -> list[RealDefect]:
        """Each image with its mask or annotation, sorted.

        Raises:
            ValueError: If there is no folder or no image, or a defect is not outlined by pixels.
        """
        found = list_defects(self.defects, marks=self.masks, argument=self.argument)
        if self.skip_unmarked and any(defect.kind == "mask" for defect in found):
            return [defect for defect in found if defect.kind == "mask"]
        if self.masks is None and all(defect.kind == "image" for defect in found):
            where = "the images" if isinstance(self.defects, list) else f"{str(self.defects)!r}"
            msg = (
                f"`{self.argument}` must be given: there is no folder `ground_truth` beside `defects`, "
                f"{where}, nor any mark of {str(found[0].image)!r}. Masks say which pixels are the "
                f"defect: non-zero where it is. {_REMEDY}"
            )
            raise ValueError(msg)
        for defect in found:
            if defect.kind != "mask":
                raise ValueError(_describe_unusable(defect, self.argument))
        return found

    @cached_property
    def white(self) -> WhitePoint:
        """White point of the images of more than 8 bits, as given or found in them."""
        given, found = self._given_white, find_white_point(defect.image for defect in self.listed)
        return found if given is None else WhitePoint(given.integer or found.integer, given.floating or found.floating)

    @cached_property
    def donors(self) -> dict[str, list[list[Donor]]]:
        """For each type of defect, a list of images, each with its defects.

        Raises:
            ValueError: If an image or a mask is unreadable, or a mask is empty or does not have its image's size.
        """
        found: dict[str, list[list[Donor]]] = {}
        for defect in self.listed:
            pixels = _read_image(defect.image, self.white)
            for family, inside in defect.read_masks().items():
                found.setdefault(family, []).append(_cut_donors(family, pixels, inside))
        return found


def _describe_unusable(defect: RealDefect, argument: str) -> str:
    """Say why the defect of an image cannot be cut out."""
    image = defect.image
    if defect.kind == "image":
        return (
            f"`{argument}` must hold a mask of every image in `defects`, but there is neither {image.stem}_mask.png "
            f"nor {image.stem}.png for {str(image)!r}. Add it, or take the image away. {_REMEDY}"
        )
    return (
        f"`defects` must be outlined by pixels to be pasted, but {str(image)!r} is marked by {_KINDS[defect.kind]} in "
        f"{str(defect.files[1])!r}, which does not say where the defect ends. {_REMEDY}"
    )


def _read_image(image: Path, white: WhitePoint) -> np.ndarray:
    """Read an image as (H, W, 3) uint8."""
    try:
        with allow_large_images():
            return decode_image(read_bytes(image), white_point=white)
    except UnreadableImageError as error:
        msg = f"`defects` holds an unreadable image, {str(image)!r}: {error}. Replace it, or take it away."
        raise ValueError(msg) from error


def _cut_donors(family: str, pixels: np.ndarray, inside: np.ndarray) -> list[Donor]:
    """Cut out each defect of an image with a margin; components close to one another are one defect."""
    height, width = inside.shape
    gap = max(1, min(height, width) // _MARGIN_SHARE // 2)
    near = ndimage.maximum_filter(inside, size=2 * (gap // 2) + 1)
    labels, _ = ndimage.label(near, structure=np.ones((3, 3)))
    donors = []
    for index, around in enumerate(ndimage.find_objects(labels), start=1):
        own = inside[around] & (labels[around] == index)
        rows = around[0].start + np.flatnonzero(own.any(1))
        columns = around[1].start + np.flatnonzero(own.any(0))
        top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
        margin = max(2 * gap, max(bottom - top, right - left) // 4)
        box = (
            slice(max(0, top - margin), min(height, bottom + margin)),
            slice(max(0, left - margin), min(width, right + margin)),
        )
        reaches = torch.zeros(3, 3, dtype=torch.bool)
        reaches[0, 1], reaches[2, 1] = top <= gap // 4, bottom >= height - gap // 4
        reaches[1, 0], reaches[1, 2] = left <= gap // 4, right >= width - gap // 4
        donors.append(
            Donor(
                family=family,
                pixels=torch.from_numpy(pixels[box].copy()).permute(2, 0, 1).contiguous(),
                mask=torch.from_numpy(inside[box] & (labels[box] == index)),
                image_size=(height, width),
                reaches=reaches,
            )
        )
    return donors
