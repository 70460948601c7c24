"""A folder of regions: a mask for each image that is to get a defect, matched by name."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import torch

from anomalib_synth.generators.regions import read_region
from anomalib_synth.images import MASK_ENDING, list_masks, warn_of_left_out

if TYPE_CHECKING:
    from collections.abc import Sequence


class RegionFolder:
    """Masks that say where defects may be drawn, one for each image.

    The region of an image ``000.png`` is a mask called ``000.png`` or ``000_mask.png``, in any format;
    ``anomalib-synth review`` saves the latter. If the mask lies in a subfolder of this folder, the image's path must
    end in the same folders; a mask in no subfolder serves every image of its name. Masks may lie beside their images,
    as ``review`` saves them by default: where one does, only files called ``*_mask`` count.

    Args:
        path: The folder, searched recursively.

    Raises:
        ValueError: If it holds no image, or two files for one name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        listing = list_masks(path, "region")
        warn_of_left_out(listing.foreign, "region")
        self.files = listing.paths
        self._found: dict[str, dict[tuple[str, ...], Path]] = defaultdict(dict)
        for file in self.files:
            relative = file.relative_to(path)
            taken = self._found[relative.stem.removesuffix(MASK_ENDING)]
            if (other := taken.setdefault(relative.parts[:-1], file)) != file:
                msg = (
                    f"`region` must be a folder with one mask for each image, got {str(other)!r} and {str(file)!r}. "
                    "Take one away."
                )
                raise ValueError(msg)

    def find(self, name: str) -> Path | None:
        """Return the mask of an image, of several the one with most folders in common; None if it has none."""
        image = PurePath(name)
        folders = image.parts[:-1]
        fitting = [
            (len(parts), file)
            for parts, file in self._found.get(image.stem, {}).items()
            if parts == folders[len(folders) - len(parts) :]
        ]
        return max(fitting)[1] if fitting else None

    def read(self, names: Sequence[str], size: tuple[int, int]) -> torch.Tensor:
        """Read the regions of images of one size; the region of an image without a mask is empty.

        Returns:
            (B, 1, H, W) bool.

        Raises:
            ValueError: If a file cannot be read, marks nothing, or has another shape than its image.
        """
        empty = torch.zeros(1, 1, *size, dtype=torch.bool)
        files = [self.find(name) for name in names]
        return torch.cat([empty if file is None else read_region(file, size) for file in files])
