"""The images that a person, on the marking page, said have no defect."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from anomalib_synth.images.listing import as_text
from anomalib_synth.store.files import write_whole
from anomalib_synth.store.logs import NotJSON, parse_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NO_DEFECT_FILE = ".no_defect.json"  # in the folder of the marks


class _Said(NamedTuple):
    """The content of one file.

    Args:
        names: Images without a defect, relative to the folder of the images, with forward slashes.
        images: The folder of the images, relative to that of the marks; ``""`` where they are the same.
    """

    names: set[str]
    images: str = ""


def read_no_defect(folder: Path) -> set[str]:
    """Return the names of the images without a defect, relative to the folder of the images, with forward slashes.

    Args:
        folder: The folder of the marks.

    Raises:
        ValueError: If the file that remembers them is damaged.
    """
    return _read(folder).names


def write_no_defect(folder: Path, names: Iterable[str], images: Path) -> None:
    """Write down which images have no defect; without a name the file is removed.

    Args:
        folder: The folder of the marks.
        names: Names of the images, relative to ``images``, with forward slashes.
        images: The folder of the images.
    """
    path = folder / NO_DEFECT_FILE
    if not (listed := sorted(names)):
        path.unlink(missing_ok=True)
        return
    content: dict[str, object] = {"no_defect": listed}
    if images.resolve() != folder.resolve():
        content["images"] = os.path.relpath(images.resolve(), folder.resolve()).replace(os.sep, "/")
    write_whole(path, json.dumps(content, indent=1, ensure_ascii=False).encode("utf-8", "surrogateescape"))


def find_no_defect(places: Mapping[Path, Iterable[tuple[Path, Path]]], *, is_given: bool) -> set[Path]:
    """Return the images that a person said have no defect, whatever folder the page was opened on.

    Args:
        places: For each image the folders with a file of such images, each with the folder in or below it in which
            the marks of this image would lie.
        is_given: Whether the user named where the marks are; then the names there mean these images.

    Raises:
        ValueError: If a file is damaged, or a name fits several images.
    """
    files: dict[Path, _Said] = {}
    fitting: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for image, place in places.items():
        for folder, marks in place:
            if folder not in files:
                files[folder] = _read(folder)
            name = as_text((marks / image.name).relative_to(folder).as_posix())
            if name in files[folder].names and image not in fitting[folder, name]:
                fitting[folder, name].append(image)
    return {
        image
        for (folder, name), images in fitting.items()
        for image in _choose(folder, files[folder], name, images, is_given)
    }


def _choose(folder: Path, said: _Said, name: str, images: list[Path], is_given: bool) -> list[Path]:
    """Return the image that a name means among those it fits; none where it means another file that exists."""
    meant = (folder / said.images / name).resolve()
    exact = [image for image in images if image.resolve() == meant]
    if exact:
        return exact
    if meant.is_file() and not (is_given and said.images):
        return []
    if len(images) > 1:
        msg = (
            f"{str(folder / NO_DEFECT_FILE)!r} names {name!r}, which fits {str(images[0])!r} and {str(images[1])!r}. "
            "Take the file away, and say on the page, opened on the folder with both, which has no defect."
        )
        raise ValueError(msg)
    return images


def _read(folder: Path) -> _Said:
    path = folder / NO_DEFECT_FILE
    if not path.is_file():
        return _Said(set())
    found = parse_line(path.read_bytes())
    names, images = (found.get("no_defect"), found.get("images", "")) if type(found) is dict else (None, "")
    is_text = type(images) is str and type(names) is list and all(type(each) is str for each in names)
    if isinstance(found, NotJSON) or names is None or not is_text:
        msg = (
            f"{str(path)!r} must be an object with a list of names, `no_defect`, and is not. Take it away: it says "
            "which images have no defect, and no mark is lost."
        )
        raise ValueError(msg)
    return _Said(set(names), images)
