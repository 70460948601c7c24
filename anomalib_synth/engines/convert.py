"""The parts of `anomalib-synth convert`: copies of images or masks that every reader reads alike."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from anomalib_synth.images import decode_mask, find_implausible, hash_bytes
from anomalib_synth.progress import track
from anomalib_synth.store import encode_png
from anomalib_synth.store.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator

_LONGEST = 255  # bytes of a file's name


def name_copies(files: dict[str, Path], out: Path) -> dict[str, Path]:
    """Return the file of each copy; names that differ only in their suffix keep the suffix in the name.

    Raises:
        ValueError: If two copies would have one name.
    """
    stems: dict[str, list[str]] = {}
    for name in files:
        stems.setdefault(str(PurePosixPath(name).with_suffix("")).casefold(), []).append(name)
    targets = {}
    for names in stems.values():
        for name in names:
            path = PurePosixPath(name)
            stem = path.stem if len(names) == 1 else f"{path.stem}_{path.suffix[1:].lower()}"
            targets[name] = out / path.with_name(name_png(stem))
    taken: dict[str, str] = {}
    for name, target in targets.items():
        other = taken.setdefault(str(target).casefold(), name)
        if other != name:
            msg = f"{name!r} and {other!r} would both become {str(target)!r}. Rename one of them."
            raise ValueError(msg)
    return targets


def name_png(stem: str) -> str:
    """Return the file name of a PNG; one that a file system would not take is cut, and told apart by a digest."""
    if len(os.fsencode(stem)) + len(".png") <= _LONGEST:
        return f"{stem}.png"
    digest = hash_bytes(os.fsencode(stem))[:8]
    return f"{os.fsencode(stem)[: _LONGEST - len(digest) - 5].decode(errors='ignore')}_{digest}.png"


def read_masks(files: dict[str, Path], left_out: dict[str, str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield name and pixels (H, W) uint8 in {0, 255} of each mask, empty ones included.

    Masks that cannot be read, or whose marked pixels cannot be told, go to ``left_out`` with the reason.
    """
    for name, path in track(files.items(), "Converting", disable=len(files) < 64):
        try:
            inside = decode_mask(path, "masks")
        except ValueError as error:
            left_out[name] = str(error.__cause__ or error)
            continue
        if inside.any() and (reason := find_implausible(inside)):
            left_out[name] = reason
            continue
        yield name, inside.astype(np.uint8) * 255


def write_copies(pixels: Iterator[tuple[str, np.ndarray]], targets: dict[str, Path]) -> int:
    """Write the copies that are not there yet, and return how many are there now."""
    written = 0
    for name, each in pixels:
        data = encode_png(each)
        if not (targets[name].is_file() and targets[name].read_bytes() == data):
            write_whole(targets[name], data)
        written += 1
    return written
