"""Opening image files. Only regular files are opened: a pipe waits for a writer, and a device may never end."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from io import BufferedReader
    from pathlib import Path

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_file(path: Path) -> BufferedReader:
    """Open a regular file to read its bytes. Follows links, and never waits.

    Raises:
        OSError: If it cannot be opened, or is not a regular file.
    """
    _check(path.stat().st_mode, path)  # before it is opened: merely opening a device can have an effect
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    try:
        _check(os.fstat(descriptor).st_mode, path)
        return os.fdopen(descriptor, "rb")
    except OSError:
        os.close(descriptor)
        raise


def describe_other(path: Path) -> str:
    """Return what a path is, such as "a pipe"; ``""`` for a regular file or a folder. Follows links."""
    try:
        mode = path.stat().st_mode
    except OSError as error:  # whoever reads it says why not; nothing can follow a loop
        return "a link that leads to itself" if error.errno == errno.ELOOP else ""
    return "" if stat.S_ISDIR(mode) else _describe(mode)


def _describe(mode: int) -> str:
    if stat.S_ISREG(mode):
        return ""
    return next((kind for is_kind, kind in _KINDS if is_kind(mode)), "no regular file")


def _check(mode: int, path: Path) -> None:
    if kind := _describe(mode):
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(number, f"it is {kind}", str(path))
