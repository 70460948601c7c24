"""The white point of a detector's training images, kept with it so that new images of more than 8 bits are read alike.

anomalib trains on 8 bits, so whoever converts images for it (`build` and `SyntheticDataModule` do) keeps the white
point with the detector: in its checkpoint, and in a file beside what is exported.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from anomalib_synth.images import WhitePoint
from anomalib_synth.store.files import write_whole

if TYPE_CHECKING:
    from pathlib import Path

_KEY = "anomalib_synth_white_point"  # in a checkpoint
_DATAMODULE = "SyntheticDataModule"  # its own part of a checkpoint
_FILE = "white_point.json"
_LEVELS = 3  # detector/openvino/model.xml and detector/white_point.json, with a folder to spare


def keep_white_point(
    white: WhitePoint, *, checkpoint: dict[str, Any] | None = None, folder: Path | None = None
) -> None:
    """Keep a white point in a checkpoint that was read, in place, and in the folder of a detector."""
    if checkpoint is not None:
        checkpoint[_KEY] = white.to_dict()
    if folder is not None:
        write_whole(folder / _FILE, json.dumps(white.to_dict()).encode())


def read_kept_white_point(detector: Path, checkpoint: dict[str, Any] | None = None) -> WhitePoint:
    """Return the white point of a detector's images, an empty :class:`WhitePoint` where none was kept.

    Args:
        detector: Its file.
        checkpoint: Content of the file, if it is a checkpoint.

    Raises:
        ValueError: If what was kept is damaged.
    """
    if checkpoint is not None and _KEY in checkpoint:
        return _read(checkpoint[_KEY], detector)
    kept = checkpoint.get(_DATAMODULE) if checkpoint is not None else None
    if isinstance(kept, dict) and "white_point" in kept:
        return _read(kept["white_point"], detector)
    for folder in list(detector.resolve().parents)[:_LEVELS]:
        path = folder / _FILE
        if path.is_file():
            try:
                return _read(json.loads(path.read_text(encoding="utf-8")), path)
            except (OSError, RecursionError, UnicodeDecodeError, json.JSONDecodeError) as error:
                msg = f"{str(path)!r} cannot be read: {error}. Restore it, or take it away and give `bit_depth`."
                raise ValueError(msg) from error
    return WhitePoint()


def _read(values: Any, path: Path) -> WhitePoint:
    try:
        return WhitePoint.from_dict(values)
    except ValueError as error:
        msg = f"{str(path)!r} does not hold a white point: got {values!r}. Give `bit_depth`."
        raise ValueError(msg) from error
