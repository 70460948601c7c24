"""Checks that a command makes before its work."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalib_synth.installation import install_extras

if TYPE_CHECKING:
    from collections.abc import Mapping


def require_extra(extra: str, command: str, *modules: str) -> None:
    """Refuse to begin without the libraries of an extra.

    Args:
        extra: Name of the extra.
        command: Name of the command, for the error.
        modules: The modules that must be installed.

    Raises:
        ValueError: If one is missing; the message says how to install it.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        msg = f"`{command}` needs {', '.join(missing)}, not installed here: {install_extras(extra)}"
        raise ValueError(msg)


def check_writable_folder(name: str, folder: Path) -> None:
    """Refuse a folder that cannot be made or written to. Nothing is made.

    Args:
        name: Name of the argument, for the error.
        folder: The folder.

    Raises:
        ValueError: If it cannot be made or written to.
    """
    place = Path(os.path.abspath(folder))  # noqa: PTH100  (links are followed by the system, not here)
    while not place.exists() and not place.is_symlink():
        place = place.parent
    if not place.is_dir():
        what = f"the file {str(place)!r}" if place.is_file() else f"{str(place)!r}, which is no folder,"
        msg = f"`{name}` must be a folder, but {what} is in the way of {str(folder)!r}. Name another one."
        raise ValueError(msg)
    if not os.access(place, os.W_OK | os.X_OK):
        msg = f"`{name}` must be a folder that can be written to, but {str(place)!r} cannot. Name another one."
        raise ValueError(msg)


def check_images_are_there(arguments: Mapping[str, Any]) -> None:
    """Refuse a folder of images that does not exist, before anything heavy is imported.

    Args:
        arguments: The arguments of a command, by name.

    Raises:
        ValueError: If such a folder does not exist.
    """
    for name in ("normals", "images", "train_normals"):
        place = arguments.get(name)
        if isinstance(place, Path) and not place.exists():
            msg = f"`{name}` must be a folder with images, got {str(place)!r}, which is no folder."
            raise ValueError(msg)


def check_outside(out: Path, **folders: Path | None) -> None:
    """Refuse to write into a folder of images, where the written files would count as images.

    Args:
        out: Where the command writes.
        folders: The folders that it reads, by the names of their arguments.

    Raises:
        ValueError: If it would.
    """
    for name, folder in folders.items():
        if folder is not None and out.resolve().is_relative_to(folder.resolve()):
            msg = (
                f"`out` must lie outside `{name}`, or the written files would count as its images, got "
                f"{str(out)!r} inside {str(folder)!r}."
            )
            raise ValueError(msg)
