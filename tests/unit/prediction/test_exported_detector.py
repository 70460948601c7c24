"""Exported graphs: what they are shown, where their map lies, and which are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchvision.transforms.v2.functional import resize

from anomalib_synth.host.telemetry import import_openvino, without_telemetry
from anomalib_synth.prediction.exported_detector import ExportedDetector
from anomalib_synth.prediction.reading import LoadedImage
from anomalib_synth.prediction.watching import ImageFile

if TYPE_CHECKING:
    from pathlib import Path

    from anomalib_synth.prediction.detector import DetectorOutput


openvino = import_openvino()


class Brightness(torch.nn.Module):
    """Resizes, crops and convolves, as a detector does; its score is the brightest pixel."""

    def __init__(self, *, resizes: bool, crop: int, has_range: bool) -> None:
        super().__init__()
        self.resizes, self.crop = resizes, crop
        self.mean = torch.nn.Conv2d(3, 1, 1, bias=False)
        torch.nn.init.constant_(self.mean.weight, 1 / 3)
        self.register_buffer("has_range", torch.tensor(has_range))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if self.resizes:
            image = F.interpolate(image, (32, 32), mode="bilinear")
        if self.crop:
            image = image[..., self.crop : -self.crop, self.crop : -self.crop]
        found = self.mean(image)
        raw = found.amax((1, 2, 3))
        score = torch.where(self.has_range, (raw * 1.0).clamp(0, 1), raw)
        return score, score > 0.5, found, found > 0.5


def export(folder: Path, *, shape: tuple[int, ...] = (-1, 3, -1, -1), suffix: str = ".xml", **options: object) -> Path:
    usual = {"resizes": True, "crop": 0, "has_range": True}
    with without_telemetry():
        graph = openvino.convert_model(
            Brightness(**{**usual, **options}).eval(), example_input=torch.rand(2, 3, 48, 40), input=list(shape)
        )
    for output, name in zip(graph.outputs, ("pred_score", "pred_label", "anomaly_map", "pred_mask"), strict=True):
        output.get_tensor().set_names({name})
    openvino.save_model(graph, folder / f"model{suffix}", compress_to_fp16=False)
    return folder / f"model{suffix}"


def judge(detector: ExportedDetector, *images: torch.Tensor) -> list[DetectorOutput]:
    found: list[DetectorOutput] = []
    shown = [
        LoadedImage(
            file=ImageFile("a", None), content="", pixels=np.zeros((1, 1, 3), np.uint8), image=detector.fit(image)
        )
        for image in images
    ]
    detector.judge([shown], lambda _, findings: found.extend(findings))
    return found


@pytest.fixture
def image() -> torch.Tensor:
    """Fine stripes, which look otherwise where they are made smaller without antialiasing."""
    image = torch.zeros(3, 96, 128)
    image[..., ::3] = 1
    return image


@pytest.mark.parametrize("shape", [(-1, 3, -1, -1), (-1, 3, 32, 32), (1, 3, 32, 32), (4, 3, 32, 32)])
def test_image_is_resized_with_antialiasing_whatever_shape_the_graph_takes(tmp_path, image, shape) -> None:
    detector = ExportedDetector(export(tmp_path, shape=shape), accelerator="cpu")
    expected = resize(image, [32, 32], antialias=True)
    first, dark, third = judge(detector, image, image / 4, image)
    assert first.score == pytest.approx(float(expected.mean(0).max()), abs=1e-6)
    assert third.score == first.score
    assert dark.score == pytest.approx(first.score / 4, abs=1e-6)
    assert np.allclose(first.anomaly_map, expected.mean(0).numpy(), atol=1e-6)
    assert detector.about.threshold == 0.5
    assert (first.is_defect, dark.is_defect) == (first.score > 0.5, False)


@pytest.mark.parametrize("crop", [0, 4])
def test_map_lies_where_the_graph_looks_when_it_crops(tmp_path, crop) -> None:
    detector = ExportedDetector(export(tmp_path, crop=crop), accelerator="cpu")
    view = detector.view((64, 128))
    scale = 32 / (32 - 2 * crop)
    assert torch.allclose(view, torch.tensor([[scale, 0, 0], [0, scale, 0]]), atol=0.02)


def test_export_is_refused_when_it_was_never_validated(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"before it was validated.*anomalib-synth calibrate"):
        ExportedDetector(export(tmp_path, has_range=False))


def test_graph_is_refused_when_it_gives_no_label(tmp_path) -> None:
    with without_telemetry():
        graph = openvino.convert_model(torch.nn.Identity(), example_input=torch.rand(1, 3, 8, 8))
    openvino.save_model(graph, tmp_path / "model.xml")
    with pytest.raises(ValueError, match="in place of pred_score and pred_label"):
        ExportedDetector(tmp_path / "model.xml")


def test_content_changes_when_the_weights_do(tmp_path) -> None:
    path = export(tmp_path)
    before = ExportedDetector(path).about.content
    assert ExportedDetector(path).about.content == before
    weights = path.with_suffix(".bin")
    data = bytearray(weights.read_bytes())
    data.append(0)
    weights.write_bytes(bytes(data))
    assert ExportedDetector(path).about.content != before


def test_accelerator_is_refused_when_there_is_none_of_that_name(tmp_path) -> None:
    with pytest.raises(ValueError, match="`accelerator` must be auto, cpu or gpu, got 'npu'"):
        ExportedDetector(export(tmp_path), accelerator="npu")
