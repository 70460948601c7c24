"""Real defects of a folder, cut out of their images by their masks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from anomalib_synth.images import (
    SUFFIXES,
    UnreadableImageError,
    WhitePoint,
    allow_large_images,
    decode_image,
    find_white_point,
    list_images,
    read_bytes,
    read_mask,
)

_GOOD = "good"
_MARGIN_SHARE = 16  # of the image's shorter side; components nearer than half of it are one defect


@dataclass(frozen=True, kw_only=True)
class Donor:
    """One real defect with the surface around it.

    Args:
        family: Type of the defect, the name of its folder.
        pixels: (3, h, w) uint8, RGB.
        mask: (h, w) bool, where the defect is.
        image_size: Height and width of the image it was cut from, in pixels.
        reaches: (3, 3) bool, whose middles of the sides say at which borders of its image the defect is cut off.
    """

    family: str
    pixels: torch.Tensor
    mask: torch.Tensor
    image_size: tuple[int, int]
    reaches: torch.Tensor

    @cached_property
    def length(self) -> float:
        """Side of the square with the defect's area, in pixels."""
        return float(self.mask.sum()) ** 0.5


class DefectFolder:
    """Images of real defects and their masks, read on first use and kept.

    Args:
        defects: The folder; the folder an image lies in names its type. What lies in a folder ``good`` is skipped.
        masks: The folder with masks, laid out alike: ``<name>_mask.<suffix>`` or ``<name>.<suffix>``. None takes the
            ``ground_truth`` that belongs to a ``test`` folder, or to a folder in it.
    """

    def __init__(self, defects: Path | str, masks: Path | str | None = None) -> None:
        self.defects = Path(defects)
        self.masks = None if masks is None else Path(masks)

    @cached_property
    def pairs(self) -> list[tuple[Path, Path]]:
        """Each image with its mask, sorted.

        Raises:
            ValueError: If there is no folder, no image, or no mask of an image.
        """
        if not self.defects.is_dir():
            msg = (
                f"`defects` must be a folder with images of real defects, got {str(self.defects)!r}. "
                "Give `<category>/test`, or a folder of images and their `masks`."
            )
            raise ValueError(msg)
        masks = self._mask_folder()
        images = [file for file in list_images(self.defects, "defects").paths if self._is_image(file, masks)]
        if not images:
            msg = (
                f"`defects` {str(self.defects)!r} holds no image of a defect ({', '.join(sorted(SUFFIXES))}; a folder "
                f"`{_GOOD}` does not count). Put some there, in a folder for each type."
            )
            raise ValueError(msg)
        return [(image, self._find_mask(image, masks)) for image in images]

    @cached_property
    def donors(self) -> dict[str, list[list[Donor]]]:
        """The defects of each image, by type.

        Raises:
            ValueError: If an image or a mask is unreadable, a mask is empty, or not of its image's size.
        """
        found: dict[str, list[list[Donor]]] = {}
        white = find_white_point(image for image, _ in self.pairs)
        for image, mask in self.pairs:
            family = image.parent.resolve().name
            found.setdefault(family, []).append(_cut_donors(family, *_read_pair(image, mask, white)))
        return found

    def _mask_folder(self) -> Path:
        if self.masks is not None:
            if not self.masks.is_dir():
                msg = f"`masks` must be a folder with masks of the defects, got {str(self.masks)!r}."
                raise ValueError(msg)
            return self.masks
        parent, name = self.defects.resolve().parent, self.defects.resolve().name
        for folder in (parent / "ground_truth", parent.parent / "ground_truth" / name):
            if folder.is_dir():
                return folder
        msg = (
            f"`masks` must be given: there is no folder `ground_truth` beside `defects` {str(self.defects)!r}. "
            "Masks say which pixels are the defect: non-zero where it is."
        )
        raise ValueError(msg)

    def _is_image(self, file: Path, masks: Path) -> bool:
        folders = file.relative_to(self.defects).parts[:-1]
        if file.stem.endswith("_mask") or _GOOD in folders:
            return False
        return masks.resolve() == self.defects.resolve() or masks.resolve() not in file.resolve().parents

    def _find_mask(self, image: Path, masks: Path) -> Path:
        """Return the mask of an image."""
        folder = masks / image.relative_to(self.defects).parent
        for stem in (f"{image.stem}_mask", image.stem):
            for suffix in sorted(SUFFIXES):
                mask = folder / f"{stem}{suffix}"
                if mask.is_file() and mask.resolve() != image.resolve():
                    return mask
        msg = (
            f"`masks` must hold a mask of every image in `defects`, but {str(folder)!r} has neither "
            f"{image.stem}_mask.png nor {image.stem}.png for {str(image)!r}. Add it, or take the image away."
        )
        raise ValueError(msg)


def _read_pair(image: Path, mask: Path, white: WhitePoint) -> tuple[np.ndarray, np.ndarray]:
    """Read an image as (H, W, 3) uint8 and its mask as (H, W) bool."""
    try:
        with allow_large_images():
            pixels = decode_image(read_bytes(image), white_point=white)
    except UnreadableImageError as error:
        msg = f"`defects` holds an unreadable image, {str(image)!r}: {error}. Replace it, or take it away."
        raise ValueError(msg) from error
    inside = read_mask(mask, "masks")
    if inside.shape != pixels.shape[:2]:
        sizes = [f"{shape[1]} x {shape[0]}" for shape in (inside.shape, pixels.shape)]
        msg = (
            f"`masks` must have the sizes of their images, but {str(mask)!r} is {sizes[0]} pixels and {str(image)!r} "
            f"is {sizes[1]}. Export the mask at the image's size."
        )
        raise ValueError(msg)
    return pixels, inside


def _cut_donors(family: str, pixels: np.ndarray, inside: np.ndarray) -> list[Donor]:
    """Cut each defect of an image out with a margin; components close to one another are one defect."""
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
