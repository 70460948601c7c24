"""Good images that a command holds in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def load_normals(normals: Path, *, image_size: int | str | None, bit_depth: int | None, limit: int) -> Any:
    """Read some of the good images of a folder, spread evenly over it.

    Args:
        normals: The folder.
        image_size: Size of all images, None for their own.
        bit_depth: Bits of white in images of more than 8 bits, None to find them.
        limit: Largest number of images.

    Returns:
        The images (3, H, W) in [0, 1], what reads others like them, and lines that say what is left out.

    Raises:
        ValueError: If there is none that can be read.
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
