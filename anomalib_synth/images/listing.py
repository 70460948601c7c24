"""The images of a folder: the same files for every command."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from anomalib_synth.images.files import describe_other
from anomalib_synth.images.formats import FOREIGN_SUFFIXES, SUFFIXES
from anomalib_synth.images.left_out import describe_left_out

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


_LISTED = SUFFIXES | FOREIGN_SUFFIXES


@dataclass(frozen=True)
class Listing:
    """What a folder holds.

    Args:
        files: Image files by their path relative to the folder, with forward slashes, sorted.
        foreign: Name and reason of everything that is left out: images in formats that are not read, folders that are
            links or unreadable, pipes, devices.
        argument: Name of the argument that holds the folder, for notes.
    """

    files: dict[str, Path]
    foreign: dict[str, str] = field(default_factory=dict)
    argument: str = "normals"

    @property
    def paths(self) -> list[Path]:
        """The files, in their order."""
        return list(self.files.values())

    def notes(self, left_out: Mapping[str, str] | None = None) -> list[str]:
        """Say what is left out, and what else could not be read, a line for each reason."""
        return describe_left_out({**self.foreign, **(left_out or {})}, self.argument)


def list_images(folder: Path, argument: str = "normals") -> Listing:
    """Return the images of a folder, searched recursively.

    Args:
        folder: The folder.
        argument: Name of the argument, for errors and notes.

    Raises:
        ValueError: If the folder does not exist or holds no file with an image's suffix.
    """
    listing = find_images(folder, argument)
    if not listing.files:
        state = "holds none" if folder.is_dir() else "is no folder"
        known = ", ".join(sorted(SUFFIXES))
        others = "".join(f" {line}" for line in listing.notes()) if folder.is_dir() else ""
        msg = f"`{argument}` must be a folder with images ({known}), got {str(folder)!r}, which {state}.{others}"
        raise ValueError(msg)
    return listing


def find_images(folder: Path, argument: str = "normals") -> Listing:
    """Return the images of a folder, searched recursively; there may be none.

    Hidden files and folders are skipped: copies that notebooks make, thumbnails, resource forks.
    """
    found: list[tuple[str, Path]] = []
    foreign: list[tuple[str, str]] = []

    def name_folder(error: OSError) -> None:
        name = Path(error.filename).relative_to(folder).as_posix()
        foreign.append((name, f"the folder cannot be read ({error.strerror})"))

    for place, folders, names in os.walk(folder, onerror=name_folder):
        parts = Path(place).relative_to(folder).parts
        folders[:] = [name for name in folders if not is_hidden([name])]
        links = ["/".join([*parts, name]) for name in folders if Path(place, name).is_symlink()]
        foreign += [(name, "a link to a folder is not followed; name that folder, or copy it here") for name in links]
        for name in names:
            suffix = Path(name).suffix.lower()
            if is_hidden([name]) or suffix not in _LISTED:
                continue
            relative = "/".join([*parts, name])
            if kind := describe_other(Path(place, name)):
                foreign.append((relative, f"it is {kind}, and only files are images"))
            elif suffix in FOREIGN_SUFFIXES:
                foreign.append((relative, f"the format {suffix} is not read; convert it to PNG"))
            else:
                found.append((relative, Path(place, name)))
    return Listing(
        sort_by_name(found),
        dict(sorted((as_text(name), reason) for name, reason in foreign)),
        argument,
    )


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
