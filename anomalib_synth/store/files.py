"""Files that are there whole or not at all, and logs that grow by whole lines."""

from __future__ import annotations

import errno
import json
import os
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from anomalib_synth.store.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BLOCK = 2**16
_SHOWN = 40  # characters of a file's name that the name of its unfinished copy takes over


def write_whole(path: Path, data: bytes) -> None:
    """Write a file such that a reader, or a kill at any moment, finds all of it or nothing.

    Raises:
        StoreError: If the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    work = path.with_name(f".{path.name[:_SHOWN]}.{uuid.uuid4().hex}")  # never longer than a file's name may be
    try:
        work.write_bytes(data)
        work.replace(path)
    except OSError as error:
        work.unlink(missing_ok=True)
        raise_when_full(error, path)
        raise


def append_lines(path: Path, data: bytes, *, sync: bool = False) -> None:
    """Append whole lines, beginning on a fresh line whatever the file ends in; if writing fails, it is as it was.

    A last line that a killed writer left unfinished goes to a file beside the log. The caller holds the log's lock:
    only one process may write at a time.

    Args:
        path: The log.
        data: The lines, each with its end.
        sync: Whether the lines must be on the disk when this returns.

    Raises:
        StoreError: If the disk is full, or the file is a link, which may lead anywhere.
    """
    end_last_line(path)
    with _opened_for_appending(path) as descriptor:
        size = os.fstat(descriptor).st_size
        try:
            written = os.write(descriptor, data)
            while written < len(data):
                written += os.write(descriptor, data[written:])
        except OSError as error:
            os.ftruncate(descriptor, size)
            raise_when_full(error, path)
            raise
        if sync:
            os.fsync(descriptor)


def end_last_line(path: Path) -> int:
    """Make a log end in a whole line: add the missing end to a whole row, or set an unfinished one aside.

    Returns:
        The number of bytes that were set aside, see :func:`side_file`.
    """
    if path.is_symlink() or not path.is_file():
        return 0
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if not size or _read_from(file, size - 1) == b"\n":
            return 0
        start = size - len(_last_line(file, size))
        tail = _read_from(file, start)
    if is_row(tail):
        with _opened_for_appending(path) as descriptor:
            os.write(descriptor, b"\n")
        return 0
    if tail.strip():
        append_lines(side_file(path), tail + b"\n", sync=True)
    os.truncate(path, start)
    return len(tail)


def is_row(line: bytes) -> bool:
    """Return whether a line is a whole JSON object; a cut one never is."""
    try:
        return type(json.loads(line)) is dict
    except (ValueError, RecursionError):
        return False


def side_file(path: Path) -> Path:
    """Return the file for lines that are taken out of a log: ``manifest.jsonl`` -> ``manifest.removed.jsonl``."""
    return path.with_suffix(f".removed{path.suffix}")


def _last_line(file: BinaryIO, size: int) -> bytes:
    """Return what follows the last line's end in a file that does not end in one."""
    length = min(size, _BLOCK)
    while b"\n" not in (block := _read_from(file, size - length)) and length < size:
        length = min(size, 2 * length)
    return block[block.rfind(b"\n") + 1 :]


def _read_from(file: BinaryIO, start: int) -> bytes:
    file.seek(start)
    return file.read()


@contextmanager
def _opened_for_appending(path: Path) -> Iterator[int]:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    try:
        descriptor = os.open(path, flags, 0o644)
    except OSError as error:
        if error.errno == errno.ELOOP:
            msg = f"{str(path)!r} is a link, which may lead anywhere. Put the file itself there."
            raise StoreError(msg) from error
        raise
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def raise_when_full(error: OSError, path: Path) -> None:
    """Raise a StoreError if an error says that a file could not be written because the disk is full."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        msg = (
            f"The disk is full: {str(path)!r} could not be written. What was written before is intact; free space and "
            "run the same command again, it goes on where it stopped."
        )
        raise StoreError(msg) from error
