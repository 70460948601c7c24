"""Exports are read back and compared; one that fails takes nothing else with it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_synth.building import exporting
from anomalib_synth.building.candidates import _make_model as make_model
from anomalib_synth.building.exporting import export_detector
from anomalib_synth.host.from_config import build_object


class Brightness(torch.nn.Module):
    """A model whose score is the mean level, and more where it was told so."""

    def __init__(self, more: float = 0.0) -> None:
        super().__init__()
        self.more = more

    def forward(self, batch: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(pred_score=batch.mean(dim=(1, 2, 3)) + self.more)


@pytest.fixture
def detector(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    for n in range(3):
        Image.fromarray(np.full((16, 16, 3), 40 * n, np.uint8)).save(tmp_path / "images" / f"{n}.png")
    (tmp_path / "detector").mkdir()
    monkeypatch.setattr(exporting, "_load", lambda path: Brightness())
    monkeypatch.setattr(exporting, "model_resize", lambda model: None)
    monkeypatch.setattr(exporting, "checkpoint_scores", lambda path, files: [40 * n / 255 for n in range(3)])
    return tmp_path / "detector"


def write_file(monkeypatch, content) -> None:
    """Have the export write a file, as a killed or broken one might."""

    def write(kind, model, detector, size):
        path = detector / kind / ("model.pt" if kind == "torch" else "model.xml")
        path.parent.mkdir()
        content(path) if callable(content) else path.write_bytes(content)
        return path

    monkeypatch.setattr(exporting, "_write", write)


def test_torch_export_is_compared_as_the_file_has_it(detector, monkeypatch) -> None:
    write_file(monkeypatch, lambda path: torch.save({"model": Brightness()}, path))
    made, failed = export_detector(detector, ["torch"], detector.parent / "images")
    assert not failed
    assert made["torch"]["file"] == "torch/model.pt"
    assert made["torch"]["difference"] < 1e-6


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no pickle", "it cannot be read back"),
        (lambda path: torch.save({"model": Brightness(0.1)}, path), "its scores differ from the checkpoint's by 0.1"),
    ],
)
def test_torch_export_is_taken_away_when_its_file_is_not_the_model(content, reason, detector, monkeypatch) -> None:
    write_file(monkeypatch, content)
    made, failed = export_detector(detector, ["torch"], detector.parent / "images")
    assert not made
    assert reason in failed["torch"]
    assert not (detector / "torch").exists()


def test_other_exports_are_made_when_one_fails(detector, monkeypatch) -> None:
    def write(kind, model, detector, size):
        if kind == "openvino":
            msg = "the exporter\nbroke"
            raise RuntimeError(msg)
        return detector / "torch" / "model.pt"

    monkeypatch.setattr(exporting, "_write", write)
    monkeypatch.setattr(exporting, "_torch_scores", lambda path, batches: [40 * n / 255 for n in range(3)])
    made, failed = export_detector(detector, ["torch", "openvino"], detector.parent / "images")
    assert list(made) == ["torch"]
    assert failed == {"openvino": "RuntimeError: the exporter broke"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["patchcore", "padim"])
def test_openvino_file_scores_as_the_model_when_torch_can_export_only_one_image(name, tmp_path) -> None:
    pytest.importorskip("openvino")
    from anomalib.models import AnomalibModule

    torch.manual_seed(0)
    model = build_object(AnomalibModule, make_model(name, 0.01), "The configuration's `model`").eval()
    if name == "patchcore":
        model.model.memory_bank = torch.rand(12, 152)
    else:
        model.model.gaussian.mean = torch.rand(100, 400)
        model.model.gaussian.inv_covariance = torch.eye(100).repeat(400, 1, 1)
    model.post_processor.image_threshold.fill_(5.0)
    batches = [torch.rand(1, 3, 160, 160) for _ in range(2)]
    path = exporting._write("openvino", model, tmp_path, (160, 160))
    with torch.inference_mode():
        expected = [float(model(batch).pred_score) for batch in batches]
    assert exporting._openvino_scores(path, batches) == pytest.approx(expected, abs=1e-3)
    assert [each.name for each in tmp_path.iterdir()] == ["openvino"]
