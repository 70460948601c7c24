"""Detectors that anomalib exported to OpenVINO or ONNX; OpenVINO runs both.

An export resizes without the antialiasing of its checkpoint, which changes the scores. So images are resized here, as
the checkpoint would do it, to the size that the graph resizes to. What the graph crops is found by sending ramps
through the part of it before the first convolution.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torchvision.transforms.v2.functional import resize

from anomalib_synth.calibration.kept_white_point import read_kept_white_point
from anomalib_synth.functional.field_of_view import find_view
from anomalib_synth.host.telemetry import import_openvino
from anomalib_synth.images import digest_file, hash_bytes
from anomalib_synth.images.batching import fill_chunks
from anomalib_synth.installation import install_package
from anomalib_synth.prediction.detector import DetectorInfo, DetectorOutput, check_scores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from anomalib_synth.prediction.reading import LoadedImage

_CONVOLUTIONS = ("Convolution", "GroupConvolution")
_KEEP_PIXELS = ("Convert", "Reshape", "Squeeze", "Unsqueeze")
_EXACT = {"INFERENCE_PRECISION_HINT": "f32"}  # some processors would compute in 16 bits, which changes the scores


class ExportedDetector:
    """An OpenVINO or ONNX model that anomalib exported.

    Args:
        path: Its ``.xml`` or ``.onnx`` file.
        accelerator: ``"auto"`` and ``"cpu"`` take the CPU, ``"gpu"`` the GPU that OpenVINO finds.

    Raises:
        ValueError: If the file cannot be read, the model gives no score and label or was exported before it had a
            threshold, openvino is not installed, or the device cannot run the model.
    """

    def __init__(self, path: Path, *, accelerator: str = "auto") -> None:
        if accelerator not in {"auto", "cpu", "gpu"}:
            msg = f"`accelerator` must be auto, cpu or gpu, got {accelerator!r}."
            raise ValueError(msg)
        self._device = "GPU" if accelerator == "gpu" else "CPU"
        graph = _read_graph(path)
        shape = graph.input(0).partial_shape
        self._count = None if shape[0].is_dynamic else shape[0].get_length()
        static = shape.rank.get_length() == 4 and not (shape[2].is_dynamic or shape[3].is_dynamic)
        self._size = [shape[2].get_length(), shape[3].get_length()] if static else None
        self._model = self._compile(graph)
        resized, prepared = _find_preparation(graph)
        self._resized = self._compile(resized) if resized and not static else None
        self._prepared = self._compile(prepared) if prepared else None
        self._sizes: dict[tuple[int, int], list[int]] = {}
        self._views: dict[tuple[int, int], torch.Tensor | None] = {}
        self.white_point = read_kept_white_point(path)
        self.about = DetectorInfo(
            path=str(path),
            content=_digest(path),
            kind="exported",
            model="",
            threshold=_find_threshold(graph, path),
            raw_threshold=None,
        )

    def fit(self, image: torch.Tensor) -> torch.Tensor:
        """Resize an image (3, H, W), with antialiasing, to the size that the graph resizes to."""
        size = self._size or self._find_size((image.shape[-2], image.shape[-1]))
        return image if [*image.shape[-2:]] == size else resize(image, size, antialias=True)

    def view(self, size: tuple[int, int]) -> torch.Tensor | None:
        """Return where the pixels of an image are on the map; see :meth:`.Detector.view`."""
        if size not in self._views:
            try:
                self._views[size] = find_view(self._prepare, size)
            except ValueError:
                self._views[size] = None
        return self._views[size]

    def judge(
        self, batches: Iterable[list[LoadedImage]], tell: Callable[[list[LoadedImage], list[DetectorOutput]], None]
    ) -> None:
        """Judge batches as they come."""
        for batch in batches:
            images = torch.stack([shown.image for shown in batch]).numpy()
            count = self._count or len(images)
            found: list[DetectorOutput] = []
            for filled, own in fill_chunks(images, count):
                found += _read(self._model({0: np.stack(filled)}), count)[:own]
            tell(batch, found)

    def _compile(self, graph: Any) -> Any:
        try:
            return _core().compile_model(graph, self._device, _EXACT)
        except RuntimeError as error:
            msg = f"`accelerator` {self._device} cannot run the detector: {' '.join(str(error).split())[:300]}"
            raise ValueError(msg) from error

    def _find_size(self, size: tuple[int, int]) -> list[int]:
        """Return the height and width that the graph resizes an image of ``size`` to."""
        if size not in self._sizes:
            blank = np.zeros((self._count or 1, 3, *size), np.float32)
            seen = blank if self._resized is None else self._resized.create_infer_request().infer({0: blank})[0]
            self._sizes[size] = [*seen.shape[-2:]]
        return self._sizes[size]

    def _prepare(self, image: torch.Tensor) -> torch.Tensor:
        """Return the input of the first convolution for an image (1, 3, H, W)."""
        fitted = self.fit(image).numpy()
        if self._prepared is None:
            return torch.from_numpy(fitted)
        return torch.from_numpy(self._prepared({0: np.repeat(fitted, self._count or 1, axis=0)})[0][:1])


def _openvino() -> Any:
    """Return the module ``openvino``, which the package does not depend on.

    Raises:
        ValueError: If it is not installed.
    """
    try:
        return import_openvino()
    except ImportError as error:
        msg = (
            f"`detector` is an exported model, which needs openvino, not installed here: {install_package('openvino')}"
        )
        raise ValueError(msg) from error


@cache
def _core() -> Any:
    """Return OpenVINO's core, one for the process: when several came and went, Ctrl-C crashed it (OpenVINO 2026.4)."""
    return _openvino().Core()


def _read_graph(path: Path) -> Any:
    if path.suffix == ".xml" and not path.with_suffix(".bin").is_file():
        msg = f"`detector` {str(path)!r} must have its weights, {path.with_suffix('.bin').name!r}, beside it."
        raise ValueError(msg)
    try:
        graph = _core().read_model(path)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        msg = f"`detector` must be a model that anomalib exported, got {str(path)!r}: {reason}"
        raise ValueError(msg) from error
    names = {name for output in graph.outputs for name in output.get_names()}
    if len(graph.inputs) != 1 or not {"pred_score", "pred_label"} <= names:
        msg = (
            f"`detector` must be a model that anomalib exported with its threshold, got {str(path)!r}, which gives "
            f"{', '.join(sorted(names)) or 'nothing'} in place of pred_score and pred_label. Validate or calibrate the "
            "model (`anomalib-synth calibrate`) and export it again."
        )
        raise ValueError(msg)
    return graph


def _find_threshold(graph: Any, path: Path) -> float | None:
    """Return the threshold on scores that the graph holds, None if it does not compare the way anomalib's exports do.

    Raises:
        ValueError: If the model was exported before it had a threshold and the range of its scores.
    """
    node = graph.output("pred_label").get_node()
    while node.get_type_name() != "Greater":
        if len(node.input_values()) < 1 or node.get_type_name() not in {"Result", *_KEEP_PIXELS}:
            return None
        node = node.input_value(0).get_node()
    score, limit = (value.get_node() for value in node.input_values())
    if limit.get_type_name() != "Constant":
        return None
    threshold = float(np.ravel(limit.get_data())[0])
    normalised = score.input_value(0).get_node() if score.get_type_name() == "Select" else None
    is_known = normalised is None or normalised.get_type_name() != "Constant" or bool(np.all(normalised.get_data()))
    if math.isnan(threshold) or not is_known:
        msg = (
            f"`detector` {str(path)!r} must have a threshold, but it was exported before it was validated. Calibrate "
            "its checkpoint (`anomalib-synth calibrate`) and export it again."
        )
        raise ValueError(msg)
    return threshold


def _find_preparation(graph: Any) -> tuple[Any | None, Any | None]:
    """Return the graph up to its initial resize, and up to its first convolution; None for each that is not there."""
    openvino = _openvino()
    nodes = graph.get_ordered_ops()
    first = next((node for node in nodes if node.get_type_name() in _CONVOLUTIONS), None)
    if first is None:
        return None, None
    parameters = graph.get_parameters()
    prepared = openvino.Model([first.input_value(0)], parameters)
    for node in prepared.get_ordered_ops():
        if node.get_type_name() == "Interpolate" and _begins(node):
            return openvino.Model([node.output(0)], parameters), prepared
    return None, prepared


def _begins(node: Any) -> bool:
    """Return whether no operation before a node changes the pixels."""
    node = node.input_value(0).get_node()
    while node.get_type_name() in _KEEP_PIXELS:
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Parameter")


def _read(outputs: Any, count: int) -> list[DetectorOutput]:
    values = {name: value for output, value in outputs.items() for name in output.get_names()}
    scores = np.ravel(values["pred_score"]).astype(float).tolist()
    labels = np.ravel(values["pred_label"]).astype(bool)
    maps, masks = (
        None if (found := values.get(name)) is None else found.reshape(count, *found.shape[-2:])
        for name in ("anomaly_map", "pred_mask")
    )
    check_scores(scores, count)
    return [
        DetectorOutput(
            score=scores[n],
            is_defect=bool(labels[n]),
            anomaly_map=None if maps is None else maps[n].astype(np.float32),
            mask=None if masks is None else masks[n].astype(bool),
        )
        for n in range(count)
    ]


def _digest(path: Path) -> str:
    """Return one digest of a model's file and the file of its weights, if there is one."""
    weights = [path.with_suffix(".bin")] if path.suffix == ".xml" else [path.with_name(f"{path.name}.data")]
    return hash_bytes("".join(digest_file(each) for each in [path, *weights] if each.is_file()).encode())
