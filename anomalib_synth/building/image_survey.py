"""Surveys the good images of a folder: reads each once, and finds copies and oddities."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from anomalib_synth.building.image_facts import ImageFacts
from anomalib_synth.building.oddities import THUMBNAIL, Oddity, find_oddities
from anomalib_synth.images import (
    ImageReader,
    UnreadableImageError,
    WhitePoint,
    allow_large_images,
    choose_white_point,
    digest_pixels,
    list_images,
    read_bytes,
)
from anomalib_synth.images.agreement import find_difference
from anomalib_synth.images.reading import open_image
from anomalib_synth.images.samples import is_deep

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_THREADS = 4


@dataclass(frozen=True, kw_only=True)
class ImageSurvey:
    """What a folder holds.

    Args:
        images: Every image that can be read.
        unreadable: Images that cannot be read.
        oddities: What is odd, in words.
        groups: The different contents (digests); near copies, such as a picture that was saved twice, in one group.
        white_point: White point of the files of more than 8 bits.
    """

    images: list[ImageFacts]
    unreadable: list[ImageFacts]
    oddities: list[Oddity]
    groups: list[list[str]]
    white_point: WhitePoint


def look_at(
    folder: Path,
    argument: str = "normals",
    *,
    bit_depth: int | None = None,
    advance: Callable[[float], None] = lambda _: None,
) -> ImageSurvey:
    """Read every image of a folder once, and find what is odd about them.

    Args:
        folder: The folder, searched recursively.
        argument: What the caller calls the folder, for errors.
        bit_depth: Bit depth of the camera for images of more than 8 bits; None finds the white point in the folder.
        advance: Called with the share of images that have been read, in [0, 1].

    Raises:
        ValueError: If there is no image in it.
    """
    listing = list_images(folder, argument)
    white = choose_white_point(bit_depth, listing.paths)
    reader = ImageReader(None, white)
    read: list[ImageFacts] = []
    with ThreadPoolExecutor(_THREADS) as pool, allow_large_images():
        for image in pool.map(lambda item: look_at_file(*item, reader=reader), listing.files.items()):
            read.append(image)
            advance(len(read) / len(listing.files))
    images = [image for image in read if not image.unreadable]
    unreadable = [image for image in read if image.unreadable]
    groups, oddities = find_oddities(images, white)
    return ImageSurvey(images=images, unreadable=unreadable, oddities=oddities, groups=groups, white_point=white)


def look_at_file(name: str, path: Path, *, reader: ImageReader) -> ImageFacts:
    """Return the facts about a file; for one that cannot be read, only the reason."""
    try:
        data = read_bytes(path)
        pixels = reader.decode(data)
        with open_image(data) as image:
            kind = f"{16 if is_deep(image, data) else 8}-bit {'grey' if _is_grey(pixels) else 'RGB'}"
    except UnreadableImageError as error:
        return ImageFacts(name=name, path=path, unreadable=str(error))
    return ImageFacts(
        name=name,
        path=path,
        content=digest_pixels(pixels),  # of 8 bits, as the models see it, and not of 16
        size=(pixels.shape[1], pixels.shape[0]),
        kind=kind,
        difference=find_difference(path),
        brightness=float(pixels.mean()) / 255,
        thumbnail=make_thumbnail(pixels),
    )


def make_thumbnail(pixels: np.ndarray) -> np.ndarray:
    """Return a small grey picture, (64, 64) float32 in [0, 1], of an image (H, W, 3) uint8."""
    grey = Image.fromarray(pixels).convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    return np.asarray(grey, np.float32) / 255


def distinct(images: Sequence[ImageFacts]) -> dict[str, ImageFacts]:
    """Return the first image of each content, by content."""
    found: dict[str, ImageFacts] = {}
    for image in images:
        found.setdefault(image.content, image)
    return found


def _is_grey(pixels: np.ndarray) -> bool:
    return bool((pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 1] == pixels[..., 2]).all())
