"""Reads good images into memory, for several commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def load_normals(normals: Path, *, image_size: int | str | None, bit_depth: int | None, limit: int) -> Any:
    """Read some of the good images of a folder, spread evenly over it.

    Args:
        normals: The folder.
        image_size: Size to resize them to; None keeps their own.
        bit_depth: Bit depth of the camera for images of more than 8 bits; None finds it in the folder.
        limit: Largest number of images.

    Returns:
        The images, (3, H, W) float32 in [0, 1]; the reader that read them; and lines that say what was left out.

    Raises:
        ValueError: If no image can be read.
    """
    from anomalib_synth.generators.prepared import evenly_spread
    from anomalib_synth.images import ImageFolder, ImageSize, choose_white_point, list_images, to_tensor

    listing = list_images(normals)
    folder = ImageFolder(
        dict(evenly_spread(list(listing.files.items()), limit)),
        image_size=ImageSize.parse(image_size),
        white_point=choose_white_point(bit_depth, listing.paths),
    )
    images = [to_tensor(pixels) for _, pixels in folder]
    folder.require(1, "normals")
    return images, folder.reader, listing.notes(folder.left_out)
