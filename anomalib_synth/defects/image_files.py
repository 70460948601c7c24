"""Finds the files that are images of real defects, before their marks are read."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anomalib_synth.defects.annotation_files import AnnotationFile
from anomalib_synth.defects.layout import MASK_FOLDERS, Places, find_beside, find_said_beside, find_within
from anomalib_synth.defects.no_defect import find_no_defect
from anomalib_synth.defects.sources import SourceReader
from anomalib_synth.images import MASK_ENDING, SUFFIXES, list_images, warn_of_left_out

if TYPE_CHECKING:
    from collections.abc import Sequence

_GOOD = "good"
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageFiles:
    """The images that were asked for, and where.

    Args:
        chosen: The images that are not in a folder ``good``.
        known: All images of the folder, good ones too; the same as ``chosen`` where files were given.
        base: The folder, None where files were given.
    """

    chosen: list[Path]
    known: list[Path]
    base: Path | None


def list_defect_images(defects: Path | str, *, name: str = "defects") -> list[Path]:
    """Return the images of a folder that have a defect, whatever says where.

    Annotations are read for whether they call an image good, not for where they mark it: those that cannot be used say
    nothing, and a warning tells why.

    Args:
        defects: A folder, searched recursively. Masks are left out, and what lies in a folder ``good``; so is what
            annotations name without marking anything, and what a person said to have no defect on the page where
            defects are marked, unless it was marked since.
        name: What the caller calls ``defects``, for errors.

    Raises:
        ValueError: If there is none.
    """
    images = find_image_files(defects, None, name)
    places = find_places(images, None)
    said_good = find_no_defect({image: place.said for image, place in places.items()}, is_given=False)
    try:
        reader = SourceReader(images.known, name, base=images.base, is_given=False)
        sources = reader.read(images.chosen, places, None)
    except ValueError as error:
        msg = "Images of `%s` that annotations call good count as defects, as the annotations cannot be used: %s"
        _logger.warning(msg, name, error)
        found = [image for image in images.chosen if image not in said_good or _is_marked(image, places[image])]
    else:
        marked = {image for image, each in sources.items() if not all(source.is_empty for source in each)}
        good = (said_good | sources.keys()) - marked
        found = [image for image in images.chosen if image not in good]
        warn_of_good([image for image in images.chosen if image in good], name)
    if not found:
        raise ValueError(describe_empty(defects, name))
    return found


def warn_of_good(images: Sequence[Path], name: str) -> None:
    """Say how many images count as good, if any do."""
    if images:
        _logger.warning(
            "%d images of `%s` are annotated without a single mark, so they count as good and are left out, such "
            "as %r. Mark their defects, or take the annotation away.",
            len(images),
            name,
            str(images[0]),
        )


def find_places(images: ImageFiles, marks: Path | None) -> dict[Path, Places]:
    """Return where to look for the marks of each image, good ones too.

    Args:
        images: The images.
        marks: A folder or file of marks that was given, None to look beside the images.
    """
    one_each = {image.parent: image for image in images.known}
    of_folder = {folder: _places_of(image, images.base or folder, marks) for folder, image in one_each.items()}
    return {image: of_folder[image.parent] for image in images.known}


def _places_of(image: Path, base: Path, marks: Path | None) -> Places:
    if marks is None:
        return find_beside(image, base)
    return find_within(image, base, marks) if marks.is_dir() else Places(said=find_said_beside(image, base))


def _is_marked(image: Path, places: Places) -> bool:
    """Return whether there is a mask or a shape of LabelMe for an image."""
    return bool(places.find_masks(image)) or any(map(_has_shapes, places.find_labelme(image)))


def _has_shapes(path: Path) -> bool:
    try:
        content = AnnotationFile(path, "marks").read_json()
    except ValueError:
        return False
    return type(content) is dict and bool(content.get("shapes"))


def find_image_files(defects: Path | str | Sequence[Path | str], marks: Path | None, name: str) -> ImageFiles:
    """Return the images of a folder, or those given.

    Args:
        defects: A folder, searched recursively, or files.
        marks: Folder of the marks, None where they are beside.
        name: What the caller calls ``defects``, for errors.

    Raises:
        ValueError: If there is no such image, or a file is no image.
    """
    if isinstance(defects, (str, Path)) and not Path(defects).is_file():
        folder = Path(defects)
        if not folder.is_dir():
            msg = (
                f"`{name}` must be a folder with images of real defects, got {str(folder)!r}. Give `<category>/test`, "
                "a folder of images and their masks, or images."
            )
            raise ValueError(msg)
        if is_store(folder):
            msg = (
                f"`{name}` must be a folder with images of real defects, but {str(folder)!r} is a store of synthetic "
                "samples. `anomalib-synth learn --missed` takes a store, training takes it by StoredGenerator "
                "(configs/synthesis/stored.yaml), and `anomalib-synth export` makes images and masks of it."
            )
            raise ValueError(msg)
        listing = list_images(folder, name, with_masks=True)
        warn_of_left_out(listing.foreign, name)
        images = [file for file in listing.paths if _is_image(file, folder, marks)]
        chosen = [image for image in images if _GOOD not in image.relative_to(folder).parts[:-1]]
        if not chosen:
            raise ValueError(describe_empty(defects, name))
        return ImageFiles(chosen, images, folder)
    listed = [Path(defects)] if isinstance(defects, (str, Path)) else [Path(file) for file in defects]
    for file in listed:
        if not file.is_file() or file.suffix.lower() not in SUFFIXES:
            state = "is a folder" if file.is_dir() else "is no image" if file.is_file() else "is not there"
            msg = (
                f"`{name}` must be one folder, or images ({', '.join(sorted(SUFFIXES))}), but {str(file)!r} {state}. "
                "Give the images one by one."
            )
            raise ValueError(msg)
    if not listed:
        raise ValueError(describe_empty(defects, name))
    unique = list({file.resolve(): file for file in listed}.values())
    return ImageFiles(unique, unique, None)


def is_store(folder: Path) -> bool:
    """Return whether a folder is a store of kept samples."""
    return (folder / "store.json").is_file()


def _is_image(file: Path, folder: Path, marks: Path | None) -> bool:
    """Return whether a file is an image and not a mask of one."""
    if file.stem.endswith(MASK_ENDING):
        return False
    if marks is None:
        return not set(MASK_FOLDERS) & set(file.relative_to(folder).parts[:-1])
    return marks.resolve() == folder.resolve() or marks.resolve() not in file.resolve().parents


def describe_empty(defects: object, name: str) -> str:
    """Return the message of the error that there is no image of a defect."""
    named = f" {str(defects)!r}" if isinstance(defects, (str, Path)) else ""
    return (
        f"`{name}`{named} holds no image of a defect ({', '.join(sorted(SUFFIXES))}; a folder `{_GOOD}` does not "
        "count, nor what annotations name without a mark). Put some there, in a folder for each type."
    )
