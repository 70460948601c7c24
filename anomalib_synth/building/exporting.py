"""Exports a calibrated detector for torch and OpenVINO, and makes sure that both say what the checkpoint says."""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from anomalib_synth.calibration.checkpoints import load_model, read_checkpoint
from anomalib_synth.calibration.predict_loop import quiet_host
from anomalib_synth.data.normals import model_resize
from anomalib_synth.host.telemetry import import_openvino, without_telemetry
from anomalib_synth.images import list_images, read_tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anomalib.models import AnomalibModule

KINDS = ("torch", "openvino")
_NEEDED = ("openvino", "onnx", "onnxscript")
_CLOSE = 1e-3
_COMPARED = 4


def missing_for_openvino() -> list[str]:
    """Return the libraries that an export to OpenVINO takes and that are not installed."""
    return [name for name in _NEEDED if find_spec(name) is None]


def export_detector(detector: Path, kinds: Sequence[str], images: Path) -> dict[str, dict[str, Any]]:
    """Write the exports of a calibrated detector beside its checkpoint.

    Args:
        detector: Folder with ``calibrated.ckpt`` and ``config.yaml``.
        kinds: ``"torch"`` and ``"openvino"``.
        images: Folder of images that scores are compared on.

    Returns:
        By kind the file, and the largest difference to the checkpoint's scores.

    Raises:
        ValueError: If an export gives other scores than the checkpoint.
    """
    checkpoint = detector / "calibrated.ckpt"
    model = _load(checkpoint)
    files = list_images(images).paths[:_COMPARED]
    expected = checkpoint_scores(checkpoint, files)
    shown = [read_tensor(path, "normals") for path in files]
    resize = model_resize(model)
    batches = [(resize(image) if resize else image)[None].float().clamp(0, 1) for image in shown]
    made = {}
    for kind in kinds:
        path = _write(kind, model, detector, (batches[0].shape[-2], batches[0].shape[-1]))
        found = _openvino_scores(path, batches) if kind == "openvino" else predict_scores(model, batches)
        difference = max(abs(a - b) for a, b in zip(expected, found, strict=True))
        if not difference <= _CLOSE:
            msg = (
                f"The export to {kind} must give the checkpoint's scores to {_CLOSE}, but they differ by "
                f"{difference:.2g}: {str(path)!r} is not to be used. The checkpoint is; report this, please."
            )
            raise ValueError(msg)
        made[kind] = {"file": path.relative_to(detector).as_posix(), "difference": difference}
    return made


def checkpoint_scores(checkpoint: Path, files: Sequence[Path]) -> list[float]:
    """Return the normalised score of each image as `anomalib predict --ckpt_path` gives it."""
    from anomalib.data import PredictDataset
    from anomalib.engine import Engine

    model, _ = load_model(None, checkpoint, read_checkpoint(checkpoint))
    model.evaluator = model.visualizer = None
    scores = []
    with tempfile.TemporaryDirectory() as work, quiet_host(), contextlib.redirect_stderr(io.StringIO()):
        engine = Engine(
            default_root_dir=work, logger=False, accelerator="cpu", devices=1, enable_progress_bar=False,
            enable_model_summary=False,
        )  # fmt: skip
        for file in files:
            batches = engine.predict(model, dataset=PredictDataset(file), ckpt_path=checkpoint)
            scores.append(float(batches[0].pred_score.flatten()[0]))
    return scores


def predict_scores(model: AnomalibModule, batches: Sequence[torch.Tensor]) -> list[float]:
    """Return the normalised score of each image by the module that is exported: 0.5 is the threshold."""
    model.eval()
    with torch.inference_mode():
        return [float(model(batch).pred_score.flatten()[0]) for batch in batches]


def _load(checkpoint: Path) -> AnomalibModule:
    loaded = read_checkpoint(checkpoint)
    model, _ = load_model(None, checkpoint, loaded)
    model.load_state_dict(loaded["state_dict"])
    model.evaluator = model.visualizer = None
    return model.cpu().eval()


def _write(kind: str, model: AnomalibModule, detector: Path, size: tuple[int, int]) -> Path:
    """Export into a folder of its own first, so that a stopped export leaves nothing half done."""
    from anomalib.engine import Engine

    target = detector / kind
    with (
        tempfile.TemporaryDirectory(dir=detector) as work,
        quiet_host(),
        without_telemetry(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        options = {"input_size": size} if kind == "openvino" else {}
        engine = Engine(default_root_dir=work, logger=False, accelerator="cpu")
        made = engine.export(model, kind, export_root=work, **options)
        shutil.rmtree(target, ignore_errors=True)
        Path(made).parent.rename(target)
    return target / Path(made).name


def _openvino_scores(path: Path, batches: Sequence[torch.Tensor]) -> list[float]:
    compiled = import_openvino().Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [float(compiled(batch.numpy())["pred_score"].flatten()[0]) for batch in batches]
