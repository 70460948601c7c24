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
_SHOWN = 40  # characters of a file's name in that of its unfinished copy


def write_whole(path: Path, data: bytes) -> None:
    """Write a file such that a reader, or a kill at any moment, finds all of it or nothing.

    Raises:
        StoreError: If the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    work = path.with_name(f".{path.name[:_SHOWN]}.{uuid.uuid4().hex}")  # a long name stays one that the disk allows
    try:
        work.write_bytes(data)
        work.replace(path)
    except OSError as error:
        work.unlink(missing_ok=True)
        raise_when_full(error, path)
        raise


def append_lines(path: Path, data: bytes, *, sync: bool = False) -> None:
    """Append whole lines in one write, on a fresh line whatever the file ends in; if that fails, it is as it was.

    A last line that a killed writer left unfinished goes to a file beside the log. One writer at a time: each log has
    its lock.

    Raises:
        StoreError: If the disk is full, or the file is a link: what it names may be anywhere.
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
    """Have a log end in a whole line: end a whole last row, set aside one that is unfinished.

    Returns:
        How many bytes were set aside, see :func:`side_file`.
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
    """Return whether a line is a whole JSON object: the beginning of one never is."""
    try:
        return type(json.loads(line)) is dict
    except (ValueError, RecursionError):
        return False


def side_file(path: Path) -> Path:
    """Return where what is taken out of a file goes: ``manifest.jsonl`` -> ``manifest.removed.jsonl``."""
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
    """Raise a StoreError if a file could not be written for want of space."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        msg = (
            f"The disk is full: {str(path)!r} could not be written. What was written before is intact; free space and "
            "run the same command again, it goes on where it stopped."
        )
        raise StoreError(msg) from error
