"""The folder of a build, given in place of the detector in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# What marks the folder of a build, where its detector lies, and what the detector of one that has ended holds.
_BUILD, _DETECTOR, _WHOLE = "build.json", "detector", ("calibrated.ckpt", "torch", "openvino")


def enter_build(folder: Path) -> Path:
    """Return the detector's folder within that of a build; any other folder or file is returned as it is.

    Raises:
        ValueError: If the build has not ended.
    """
    if (folder / _BUILD).is_file() and not _is_whole(folder / _DETECTOR):
        msg = (
            f"`detector` {str(folder)!r} is a build that has not ended: no model of it has a threshold yet. Give the "
            "same `anomalib-synth build` command again, or name a checkpoint."
        )
        raise ValueError(msg)
    return folder / _DETECTOR if (folder / _BUILD).is_file() or _is_whole(folder / _DETECTOR) else folder


def _is_whole(detector: Path) -> bool:
    return any((detector / name).exists() for name in _WHOLE)
