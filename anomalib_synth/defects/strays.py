"""Finds marks that belong to no image."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

from anomalib_synth.defects.annotation_files import AnnotationFile
from anomalib_synth.defects.labelme import is_labelme
from anomalib_synth.defects.layout import NAME_FILES
from anomalib_synth.images import MASK_ENDING, SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anomalib_synth.defects.layout import Places

_LABEL_LINE = re.compile(r"\s*\d+(\s+[-+.\deE]+){4,}\s*")
_HEAD_BYTES = 4096


def refuse_strays(places: Mapping[Path, Places], argument: str) -> None:
    """Refuse files of marks that lie where marks of the images are looked for, but belong to none of the images.

    Args:
        places: Where the marks of each image are looked for.
        argument: Name of the argument, for the error.

    Raises:
        ValueError: If there is such a file; the message names the first one.
    """
    known: dict[str, dict[Path, set[str]]] = {kind: defaultdict(set) for kind in ("masks", "own", "labelme", "yolo")}
    stems: dict[Path, set[str]] = {}
    for image, place in places.items():
        for kind, folders in known.items():
            for folder in getattr(place, kind):
                folders[folder].add(image.stem)
                for rival in place.rivals.get(folder, ()):  # what is theirs is no stray
                    if rival not in stems:
                        stems[rival] = {path.stem for path in rival.iterdir() if path.suffix.lower() in SUFFIXES}
                    folders[folder] |= stems[rival]
    for kind, folders in known.items():
        for folder, known_stems in folders.items():
            for path in sorted(folder.iterdir()):
                if not path.name.startswith(".") and path.is_file() and _is_stray(path, kind, known_stems):
                    msg = (
                        f"`{argument}` must belong to images that are there, but there is none for {str(path)!r}. Put "
                        "the image there, take the mark away, or give the images one by one."
                    )
                    raise ValueError(msg)


def _is_stray(path: Path, kind: str, stems: set[str]) -> bool:
    """Return whether a file is a mark of a kind and has no image."""
    suffix = path.suffix.lower()
    if path.stem in stems:
        return False
    if kind in {"masks", "own"}:
        is_mask = suffix in SUFFIXES and (kind == "masks" or path.stem.endswith(MASK_ENDING))
        return is_mask and path.stem.removesuffix(MASK_ENDING) not in stems
    if kind == "yolo":
        return suffix == ".txt" and _is_yolo(path)
    return suffix == ".json" and _is_labelme(path)


def _is_labelme(path: Path) -> bool:
    try:
        return is_labelme(AnnotationFile(path, "marks").read_json())
    except ValueError:
        return False  # not readable, so not known to be a mark


def _is_yolo(path: Path) -> bool:
    """Return whether a text file begins like YOLO's labels."""
    if path.name in NAME_FILES:
        return False
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES).decode("utf-8", "replace").splitlines()
    return bool(head) and _LABEL_LINE.fullmatch(head[0]) is not None
