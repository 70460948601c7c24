"""Opens a detector: a checkpoint, an OpenVINO or ONNX export, or a torch export."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anomalib_synth.prediction.locating import locate_detector

if TYPE_CHECKING:
    from pathlib import Path

    from anomalib_synth.prediction.detector import Detector


def open_detector(
    detector: Path,
    *,
    model: str | None = None,
    tiler: dict[str, Any] | None = None,
    accelerator: str = "auto",
    trust: bool = False,
) -> Detector:
    """Return a detector that is ready to judge images.

    Args:
        detector: A folder or a file, see :func:`~anomalib_synth.prediction.locating.locate_detector`.
        model: Class path or configuration of a checkpoint's model, None to look for it beside the checkpoint.
        tiler: Settings of anomalib's tiler, ``{}`` for no tiler, None to look for them in the configuration.
        accelerator: ``"auto"``, ``"cpu"`` or ``"gpu"``.
        trust: Whether to read a torch export, which is a pickle and may run any code.

    Raises:
        ValueError: If there is no detector, it cannot be read or has no threshold, it is a torch export that is not
            trusted, or ``model`` or ``tiler`` is given for an export.
    """
    path, kind = locate_detector(detector)
    if kind == "checkpoint":
        from anomalib_synth.prediction.checkpoint_detector import open_checkpoint

        return open_checkpoint(path, model=model, tiler=tiler, accelerator=accelerator)
    if model is not None or tiler is not None:
        msg = f"`model` and `tiler` belong to a checkpoint and have no effect on {str(path)!r}. Leave them out."
        raise ValueError(msg)
    if kind == "torch":
        from anomalib_synth.prediction.checkpoint_detector import open_torch_export

        return open_torch_export(path, trust=trust, accelerator=accelerator)
    from anomalib_synth.prediction.exported_detector import ExportedDetector

    return ExportedDetector(path, accelerator=accelerator)
