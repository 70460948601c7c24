"""Files that are there whole or not at all, and logs that grow by whole lines."""

from __future__ import annotations

import errno
import gc
import json
import os
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from anomalib_synth.store.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Write a file such that a reader, or a kill at any moment, finds all of it or nothing.

    Raises:
        StoreError: If the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    work = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        work.write_bytes(data)
        work.replace(path)
    except OSError as error:
        work.unlink(missing_ok=True)
        raise_when_full(error, path)
        raise


def append_lines(path: Path, data: bytes, *, sync: bool = False) -> None:
    """Append whole lines in one write; if that fails, the file is as it was.

    Raises:
        StoreError: If the disk is full.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
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
    finally:
        os.close(descriptor)


def raise_when_full(error: OSError, path: Path) -> None:
    """Raise a StoreError if a file could not be written for want of space."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        msg = (
            f"The disk is full: {str(path)!r} could not be written. The store is intact; free space and run the same "
            "command again, it goes on where it stopped."
        )
        raise StoreError(msg) from error


def read_lines(path: Path, start: int = 0) -> tuple[list[Any], int]:
    """Return the rows of a JSON Lines file from a byte on, and the byte after its last whole line.

    A last line without its end is what a killed writer leaves; it is not returned.

    Raises:
        StoreError: If a whole line is not JSON.
    """
    if not path.is_file():
        return [], start
    with path.open("rb") as file:
        file.seek(start)
        data = file.read()
    whole = data[: data.rfind(b"\n") + 1]
    lines = whole.splitlines()
    with _no_collector():
        try:
            rows = json.loads(b"[" + b",".join(lines) + b"]")
            if len(rows) == len(lines):
                return rows, start + len(whole)
        except ValueError:
            pass
    return [_parse(line, f"{str(path)!r}, line {number}") for number, line in enumerate(lines, 1)], start + len(whole)


@contextmanager
def _no_collector() -> Iterator[None]:
    """Keep the garbage collector from looking again and again at many small objects, none of which is garbage."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _parse(line: bytes, where: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        msg = f"{where}, is not JSON ({error}). Restore the file from a copy, or run `SampleStore.repair`."
        raise StoreError(msg) from error
