"""The images of a folder: the same files for every command."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from anomalib_synth.images.files import describe_other
from anomalib_synth.images.formats import FOREIGN_SUFFIXES, SUFFIXES
from anomalib_synth.images.left_out import describe_left_out

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping


MASK_ENDING = "_mask"
IS_MASK = "a mask of the image beside it; rename it if it is none"
_IS_IMAGE = "masks here end in `_mask`, as some lie beside their images, so this counts as an image; rename it if not"
_LISTED = SUFFIXES | FOREIGN_SUFFIXES


@dataclass(frozen=True)
class Listing:
    """What a folder holds.

    Args:
        files: Image files by their path relative to the folder, with forward slashes, sorted.
        foreign: Name and reason of what cannot be read: images in formats that are not read, folders that are links or
            unreadable, pipes, devices.
        argument: Name of the argument that holds the folder, for notes.
        masks: Masks that lie beside their images, by their relative path; they are left out too.
    """

    files: dict[str, Path]
    foreign: dict[str, str] = field(default_factory=dict)
    argument: str = "normals"
    masks: dict[str, Path] = field(default_factory=dict)

    @property
    def left_out(self) -> dict[str, str]:
        """Name and reason of everything that is left out."""
        return {**self.foreign, **dict.fromkeys(self.masks, IS_MASK)}

    @property
    def paths(self) -> list[Path]:
        """The files, in their order."""
        return list(self.files.values())

    def notes(self, left_out: Mapping[str, str] | None = None) -> list[str]:
        """Say what is left out, and what else could not be read, a line for each reason."""
        return describe_left_out({**self.left_out, **(left_out or {})}, self.argument)


def list_images(folder: Path, argument: str = "normals", *, with_masks: bool = False) -> Listing:
    """Return the images of a folder, searched recursively.

    A mask ``000_mask.png`` that lies beside its image ``000.jpg`` is no image, and left out.

    Args:
        folder: The folder.
        argument: Name of the argument, for errors and notes.
        with_masks: List such masks too; for callers that read them.

    Raises:
        ValueError: If the folder does not exist or holds no file with an image's suffix.
    """
    listing = find_images(folder, argument)
    if with_masks:
        listing = replace(listing, files=dict(sorted({**listing.files, **listing.masks}.items())), masks={})
    if not listing.files:
        state = "holds none" if folder.is_dir() else "is no folder"
        known = ", ".join(sorted(SUFFIXES))
        others = "".join(f" {line}" for line in listing.notes()) if folder.is_dir() else ""
        msg = f"`{argument}` must be a folder with images ({known}), got {str(folder)!r}, which {state}.{others}"
        raise ValueError(msg)
    return listing


def list_masks(folder: Path, argument: str = "masks") -> Listing:
    """Return the masks of a folder, searched recursively.

    These are its images. But if a mask ``000_mask.png`` lies beside its image anywhere in the folder, then only files
    whose names end in ``_mask`` are masks, and all others are left out.

    Raises:
        ValueError: If the folder does not exist or holds no file with an image's suffix.
    """
    listing = find_images(folder, argument)
    if not listing.masks:
        return list_images(folder, argument)
    lone = {name: file for name, file in listing.files.items() if file.stem.endswith(MASK_ENDING)}
    others = dict.fromkeys([name for name in listing.files if name not in lone], _IS_IMAGE)
    foreign = {name: why for name, file in listing.masks.items() if (why := _find_format(file))}
    masks = {name: file for name, file in {**lone, **listing.masks}.items() if name not in foreign}
    return replace(
        listing,
        files=dict(sorted(masks.items())),
        foreign=dict(sorted({**listing.foreign, **others, **foreign}.items())),
        masks={},
    )


def find_images(folder: Path, argument: str = "normals") -> Listing:
    """Return the images of a folder, searched recursively; there may be none.

    Hidden files and folders are skipped: copies that notebooks make, thumbnails, resource forks.
    """
    found: list[tuple[str, Path]] = []
    foreign: list[tuple[str, str]] = []
    masks: list[tuple[str, Path]] = []

    def name_folder(error: OSError) -> None:
        name = Path(error.filename).relative_to(folder).as_posix()
        foreign.append((name, f"the folder cannot be read ({error.strerror})"))

    for place, folders, names in os.walk(folder, onerror=name_folder):
        parts = Path(place).relative_to(folder).parts
        folders[:] = [name for name in folders if not is_hidden([name])]
        links = ["/".join([*parts, name]) for name in folders if Path(place, name).is_symlink()]
        foreign += [(name, "a link to a folder is not followed; name that folder, or copy it here") for name in links]
        listed = [name for name in names if Path(name).suffix.lower() in _LISTED and not is_hidden([name])]
        stems = {Path(name).stem for name in listed}
        for name in listed:
            relative = "/".join([*parts, name])
            if kind := describe_other(Path(place, name)):
                foreign.append((relative, f"it is {kind}, and only files are images"))
            elif is_mask_beside(Path(name).stem, stems):
                masks.append((relative, Path(place, name)))
            elif reason := _find_format(Path(name)):
                foreign.append((relative, reason))
            else:
                found.append((relative, Path(place, name)))
    return Listing(
        sort_by_name(found),
        dict(sorted((as_text(name), reason) for name, reason in foreign)),
        argument,
        sort_by_name(masks),
    )


def _find_format(file: Path) -> str:
    """Return why a file's format is not read; ``""`` if it is."""
    suffix = file.suffix.lower()
    return f"the format {suffix} is not read; convert it to PNG" if suffix in FOREIGN_SUFFIXES else ""


def is_mask_beside(stem: str, stems: Collection[str]) -> bool:
    """Say whether a file is the mask of another one in its folder, by their names without suffix."""
    return stem.endswith(MASK_ENDING) and stem.removesuffix(MASK_ENDING) in stems


def is_hidden(parts: Iterable[str]) -> bool:
    """Say whether a relative path is hidden, or within a hidden folder."""
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def sort_by_name(items: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """Sort by name, in the same order on every platform.

    Bytes of a name that are not UTF-8 are written as backslash escapes. If that makes two names equal, the second one
    gets a tilde.
    """
    named: dict[str, Path] = {}
    for name, path in sorted(items):
        text = as_text(name)
        while text in named:
            stem, suffix = os.path.splitext(text)  # noqa: PTH122  (no path of this machine)
            text = f"{stem}~{suffix}"
        named[text] = path
    return dict(sorted(named.items()))


def as_text(name: str) -> str:
    """Return a file's name as text that can be written anywhere."""
    return name.encode("utf-8", "backslashreplace").decode()
