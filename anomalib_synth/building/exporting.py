"""Exports a calibrated detector to torch and OpenVINO, and checks that the exports score like the checkpoint."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
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
_WORK = ".export-"
_COMPARED = 4


def missing_for_openvino() -> list[str]:
    """Return the libraries that an export to OpenVINO needs and that are not installed."""
    return [name for name in _NEEDED if find_spec(name) is None]


def export_detector(
    detector: Path, kinds: Sequence[str], images: Path
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Write the exports of a calibrated detector beside its checkpoint, read each back, and compare the scores.

    Args:
        detector: Folder with ``calibrated.ckpt`` and ``config.yaml``.
        kinds: Any of ``"torch"`` and ``"openvino"``.
        images: Folder of images on which the scores are compared.

    Returns:
        For each export that was made, its file and the largest difference to the checkpoint's scores; and for each that
        failed, the reason. A failed export does no harm to the checkpoint.
    """
    checkpoint = detector / "calibrated.ckpt"
    model = _load(checkpoint)
    files = list_images(images).paths[:_COMPARED]
    expected = checkpoint_scores(checkpoint, files)
    shown = [read_tensor(path, "normals") for path in files]
    resize = model_resize(model)
    batches = [(resize(image) if resize else image)[None].float().clamp(0, 1) for image in shown]
    made, failed = {}, {}
    for kind in kinds:
        try:
            path = _write(kind, model, detector, (batches[0].shape[-2], batches[0].shape[-1]))
            difference = _compare(kind, path, batches, expected)
        except Exception as error:  # exporters of other packages raise anything
            shutil.rmtree(detector / kind, ignore_errors=True)
            failed[kind] = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            continue
        made[kind] = {"file": path.relative_to(detector).as_posix(), "difference": difference}
    return made, failed


def _compare(kind: str, path: Path, batches: Sequence[torch.Tensor], expected: Sequence[float]) -> float:
    """Return the largest difference between the scores of an export and of the checkpoint.

    Raises:
        ValueError: If it is more than rounding.
    """
    found = _openvino_scores(path, batches) if kind == "openvino" else _torch_scores(path, batches)
    difference = max(abs(a - b) for a, b in zip(expected, found, strict=True))
    if not difference <= _CLOSE:
        msg = f"its scores differ from the checkpoint's by {difference:.2g}, more than {_CLOSE}"
        raise ValueError(msg)
    return difference


def checkpoint_scores(checkpoint: Path, files: Sequence[Path]) -> list[float]:
    """Return the normalised score of each image, as ``anomalib predict --ckpt_path`` computes it."""
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


def _load(checkpoint: Path) -> AnomalibModule:
    loaded = read_checkpoint(checkpoint)
    model, _ = load_model(None, checkpoint, loaded)
    model.load_state_dict(loaded["state_dict"])
    model.evaluator = model.visualizer = None
    return model.cpu().eval()


def _write(kind: str, model: AnomalibModule, detector: Path, size: tuple[int, int]) -> Path:
    """Export into a temporary folder and rename it, so that a stopped export leaves nothing half done."""
    from anomalib.engine import Engine

    target = detector / kind
    for stale in detector.glob(f"{_WORK}*"):  # of an export that was killed
        shutil.rmtree(stale, ignore_errors=True)
    with (
        tempfile.TemporaryDirectory(dir=detector, prefix=_WORK) as work,
        quiet_host(),
        without_telemetry(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        engine = Engine(default_root_dir=work, logger=False, accelerator="cpu")
        made = _export(engine, kind, model, Path(work), size)
        shutil.rmtree(target, ignore_errors=True)
        made.parent.rename(target)
    return target / made.name


def _export(engine: Any, kind: str, model: AnomalibModule, work: Path, size: tuple[int, int]) -> Path:
    """Return the exported file. OpenVINO gets a model for any batch size or, where torch cannot export that, for 1.

    PatchCore goes through more than 1024 patches in parts, whose number torch cannot express for a free batch size.
    """
    if kind != "openvino":
        return Path(engine.export(model, kind, export_root=work / "any"))
    try:
        return Path(engine.export(model, kind, export_root=work / "any", input_size=size))
    except Exception:  # of many kinds; the second try reports any other fault
        one = {"dynamic_shapes": None}
        return Path(engine.export(model, kind, export_root=work / "one", input_size=size, onnx_kwargs=one))


def _torch_scores(path: Path, batches: Sequence[torch.Tensor]) -> list[float]:
    """Return the scores of a torch export. The file is a pickle, so it is read in a process of its own.

    Raises:
        ValueError: If it cannot be read.
    """
    with tempfile.TemporaryDirectory() as work:
        shown = Path(work) / "images.npz"
        np.savez(shown, *[batch.numpy() for batch in batches])
        command = [sys.executable, "-m", "anomalib_synth.building.torch_scores", str(path), str(shown)]
        threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **threads})
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        said = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        msg = f"it cannot be read back: {said[-1]}"
        raise ValueError(msg)
    return [float(score) for score in json.loads(lines[-1])]


def _openvino_scores(path: Path, batches: Sequence[torch.Tensor]) -> list[float]:
    compiled = import_openvino().Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [float(compiled(batch.numpy())["pred_score"].flatten()[0]) for batch in batches]
