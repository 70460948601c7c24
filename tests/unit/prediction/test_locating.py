"""Which file of a folder is the detector."""

from __future__ import annotations

import pytest
import torch

from anomalib_synth.learning.versions import DetectorFolder, set_learned_aside
from anomalib_synth.prediction.locating import locate_detector
from anomalib_synth.prediction.opening import open_detector


def touch(root, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["weights/lightning/model.ckpt"], "weights/lightning/model.ckpt"),
        (["calibrated.ckpt", "other.ckpt", "model.xml"], "calibrated.ckpt"),
        (["detector/calibrated.ckpt", "detector/torch/model.pt", "a/a.ckpt", "a/b.ckpt"], "detector/calibrated.ckpt"),
        (["openvino/model.xml", "openvino/model.bin", "torch/model.pt"], "openvino/model.xml"),
        (["onnx/model.onnx", "onnx/model.onnx.data", "torch/model.pt"], "onnx/model.onnx"),
        (["torch/model.pt"], "torch/model.pt"),
    ],
)  # fmt: skip
def test_best_file_is_taken_when_a_folder_holds_several(tmp_path, names, found) -> None:
    touch(tmp_path, *names)
    located = locate_detector(tmp_path)
    assert located.path == tmp_path / found
    assert located == locate_detector(tmp_path / found), "a file is taken as it is"
    if names[0].startswith("detector/"):
        assert locate_detector(tmp_path / "detector") == located


@pytest.mark.parametrize(
    ("names", "given", "said"),
    [
        ([], "nothing", "which is not there"),
        (["notes.txt"], ".", "which holds none of these"),
        (["notes.txt"], "notes.txt", "got the file"),
        (["a.ckpt", "b.ckpt"], ".", "must hold one checkpoint"),
        (["a/model.xml", "b/model.xml"], ".", "must hold one exported model"),
    ],
)
def test_detector_is_refused_when_nobody_can_tell_which(tmp_path, names, given, said) -> None:
    touch(tmp_path, *names)
    with pytest.raises(ValueError, match=f"`detector` .*{said}"):
        locate_detector(tmp_path / given)


def test_weights_of_openvino_stand_for_their_model(tmp_path) -> None:
    touch(tmp_path, "model.xml", "model.bin")
    assert locate_detector(tmp_path / "model.bin").path == tmp_path / "model.xml"


class Armed:
    """An object whose pickle makes a file when it is read."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_torch_export_is_not_read_when_nobody_trusts_it(tmp_path) -> None:
    torch.save({"model": Armed(tmp_path / "ran")}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"is a torch export, a pickle.*ONNX export; or say `--trust`"):
        open_detector(tmp_path)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(ValueError, match="must be a torch export of anomalib"):
        open_detector(tmp_path, trust=True)


@pytest.mark.parametrize(
    ("name", "said"), [("model.onnx", "must be a model that anomalib exported"), ("model.xml", "weights")]
)
def test_damaged_export_is_refused(tmp_path, name, said) -> None:
    (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(ValueError, match=f"`detector` .*{said}"):
        open_detector(tmp_path)


def test_model_is_refused_when_the_detector_is_an_export(tmp_path) -> None:
    touch(tmp_path, "model.onnx")
    with pytest.raises(ValueError, match="`model` and `tiler` belong to a checkpoint"):
        open_detector(tmp_path, model="Padim")


@pytest.mark.parametrize("made", [[], ["candidates/padim/weights/lightning/model.ckpt"], ["detector/config.yaml"]])
def test_build_is_refused_when_it_has_not_ended(tmp_path, made) -> None:
    touch(tmp_path, "build.json", *made)
    with pytest.raises(ValueError, match="is a build that has not ended"):
        locate_detector(tmp_path)
    with pytest.raises(ValueError, match="is a build that has not ended"):
        DetectorFolder(tmp_path)


def test_learning_takes_the_detector_of_a_build(tmp_path) -> None:
    touch(tmp_path, "build.json", "candidates/padim/model.ckpt", "detector/calibrated.ckpt")
    (tmp_path / "detector" / "config.yaml").write_text("model: {class_path: anomalib.models.Padim}\n")
    folder = DetectorFolder(tmp_path)
    assert folder.folder == tmp_path / "detector"
    assert folder.base == tmp_path / "detector" / "calibrated.ckpt"


def test_learned_versions_are_set_aside_when_another_detector_takes_their_place(tmp_path) -> None:
    for n in (1, 2):
        touch(tmp_path, "calibrated.ckpt", "learned/history.json", "learned/detector.ckpt")
        assert set_learned_aside(tmp_path) == tmp_path / f"learned.before-{n}"
        assert (tmp_path / f"learned.before-{n}" / "detector.ckpt").is_file()
        assert locate_detector(tmp_path).path == tmp_path / "calibrated.ckpt"
    assert set_learned_aside(tmp_path) is None
