"""The command ``anomalib-synth convert``: copies of images or masks that every reader reads in the same way."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from anomalib_synth.commands.preconditions import check_writable_folder


def convert(
    images: Path | None = None,
    *,
    out: Path,
    masks: Path | None = None,
    bit_depth: int | None = None,
    image_size: int | str | None = None,
) -> None:
    """Write copies of images, or of masks, that anomalib reads as they are: upright 8-bit PNG.

    Copies keep the folders and names of their files, except for the suffix; if two names differ only in the suffix, it
    becomes part of the name. Images of 12 and 16 bits get one white point. Smoothed masks and JPEG masks get the two
    levels 0 and 255. A mask that marks nothing stays empty. A mask that looks inverted, and any file that cannot be
    read, is named and left out.

    Args:
        images: Folder with images, searched recursively. Give either this or `masks`.
        out: Folder for the copies, outside the folder that is read.
        masks: Folder with masks, searched recursively; where some lie beside their images, those that end in `_mask`.
        bit_depth: Bit depth of the camera, 8 to 16, for images of more than 8 bits; by default it is found in the
            folder. For images to predict on, give the one that was found for the training images.
        image_size: Long side in pixels, or height x width, such as 384x512; by default images keep their size.

    Raises:
        ValueError: If an argument is out of its range, two files would become one, or no file can be read.
    """
    from anomalib_synth.engines.convert import name_copies, read_masks, write_copies
    from anomalib_synth.images import ImageFolder, ImageSize, choose_white_point, list_images, list_masks

    if (images is None) == (masks is None):
        msg = f"Give one of `images` and `masks`, got {'neither' if images is None else 'both'}."
        raise ValueError(msg)
    if masks is not None and (bit_depth is not None or image_size is not None):
        msg = "`bit_depth` and `image_size` have no effect on `masks`. Leave them out."
        raise ValueError(msg)
    folder = cast("Path", images if images is not None else masks)
    if out.resolve().is_relative_to(folder.resolve()):
        msg = f"`out` must lie outside the folder that is read, got {str(out)!r} inside {str(folder)!r}."
        raise ValueError(msg)
    check_writable_folder("out", out)
    listing = list_images(folder, "images") if masks is None else list_masks(folder)
    targets = name_copies(listing.files, out)
    left_out = listing.left_out
    if masks is not None:
        written = write_copies(read_masks(listing.files, left_out), targets)
    else:
        reading = ImageFolder(
            listing.files,
            image_size=ImageSize.parse(image_size),
            white_point=choose_white_point(bit_depth, listing.paths),
            description="Converting",
        )
        if str(reading.reader.white_point):
            print(f"White is {reading.reader.white_point}.")
        written = write_copies(iter(reading), targets)
        left_out |= reading.left_out
    for name, reason in left_out.items():
        if name in targets and targets[name].is_file():
            left_out[name] = f"{reason}. The copy of an earlier run is still there"
    for line in listing.notes(left_out):
        print(line)
    print(f"{written} of {len(targets) + len(listing.left_out)} files were converted; the copies are in {out}.")
    if not written:
        msg = f"`{'masks' if masks is not None else 'images'}` must hold a file that can be read, got none."
        raise ValueError(msg)
