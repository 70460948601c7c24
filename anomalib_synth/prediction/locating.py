"""Finds the file of a detector: in the folder of a training, calibration, build or export, or the file itself."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from anomalib_synth.learning.build_folder import enter_build
from anomalib_synth.learning.versions import DetectorFolder, find_base, has_learned

Kind = Literal["checkpoint", "exported", "torch"]
_KINDS: dict[str, Kind] = {
    ".ckpt": "checkpoint", ".xml": "exported", ".onnx": "exported", ".pt": "torch", ".pth": "torch"
}  # fmt: skip
_EXPORTS = (".xml", ".onnx", ".pt")  # in the order in which they are taken
_TAKES = (
    "a folder of `anomalib train` or of `anomalib-synth calibrate`, `learn` or `build`, a checkpoint (.ckpt), or an "
    "exported model (.xml of OpenVINO, .onnx, .pt)"
)


class DetectorFile(NamedTuple):
    """The file of a detector."""

    path: Path
    kind: Kind


def locate_detector(detector: Path) -> DetectorFile:
    """Return the file of a detector.

    In a folder it is the newest version that `learn` wrote, else the calibrated checkpoint, else the only checkpoint,
    else the only exported model: OpenVINO before ONNX before torch. A folder of `build` has all that in ``detector/``.

    Args:
        detector: A folder, or a file (.ckpt, .xml or its .bin, .onnx, .pt, .pth).

    Raises:
        ValueError: If there is no detector or more than one, or the folder is that of a build that has not ended.
    """
    if detector.suffix == ".bin" and detector.with_suffix(".xml").is_file():
        detector = detector.with_suffix(".xml")
    if detector.is_file():
        if detector.suffix.lower() not in _KINDS:
            msg = f"`detector` must be {_TAKES}, got the file {str(detector)!r}."
            raise ValueError(msg)
        return DetectorFile(detector, _KINDS[detector.suffix.lower()])
    if not detector.is_dir():
        msg = f"`detector` must be {_TAKES}, got {str(detector)!r}, which is not there."
        raise ValueError(msg)
    folder = enter_build(detector)
    if has_learned(folder):
        versions = DetectorFolder(folder)
        versions.read_current()  # rebuilds the checkpoint if a killed `learn` left an older one
        return DetectorFile(versions.current, "checkpoint")
    if any(folder.rglob("*.ckpt")):
        return DetectorFile(find_base(folder), "checkpoint")
    for suffix in _EXPORTS:
        found = sorted(folder.rglob(f"*{suffix}"))
        if len(found) == 1:
            return DetectorFile(found[0], _KINDS[suffix])
        if found:
            listed = ", ".join(str(path) for path in found[:3])
            msg = f"`detector` {str(detector)!r} must hold one exported model, got {len(found)}: {listed}. Name one."
            raise ValueError(msg)
    msg = f"`detector` must be {_TAKES}, got {str(detector)!r}, which holds none of these."
    raise ValueError(msg)
