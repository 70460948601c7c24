"""Reading checkpoints: what is refused, and with which words."""

from __future__ import annotations

import errno
import pickle

import pytest
import torch

from anomalib_synth.calibration.checkpoints import load_model, read_checkpoint, save_checkpoint
from anomalib_synth.store import StoreError

LOADED = {"state_dict": {}, "hyper_parameters": {}, "anomalib_components_enabled": {}}


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (print, ("executed",))


def test_checkpoint_is_read_back_when_saved(tmp_path) -> None:
    save_checkpoint({**LOADED, "state_dict": {"a": torch.ones(2)}}, tmp_path / "m.ckpt")
    assert torch.equal(read_checkpoint(tmp_path / "m.ckpt")["state_dict"]["a"], torch.ones(2))
    assert [path.name for path in tmp_path.iterdir()] == ["m.ckpt"]


def test_nothing_is_left_when_saving_fails(tmp_path) -> None:
    with pytest.raises((AttributeError, pickle.PicklingError)):
        save_checkpoint({"a": lambda: None}, tmp_path / "m.ckpt")
    assert list(tmp_path.iterdir()) == []


def test_missing_checkpoint_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="`checkpoint` must be a checkpoint of anomalib"):
        read_checkpoint(tmp_path / "gone.ckpt")


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", pickle.dumps({"a": 1})])
def test_file_is_refused_when_it_is_no_checkpoint(tmp_path, content) -> None:
    (tmp_path / "m.ckpt").write_bytes(content)
    with pytest.raises(ValueError, match="`checkpoint` must be"):
        read_checkpoint(tmp_path / "m.ckpt")


def test_code_is_not_run_when_a_checkpoint_holds_some(tmp_path, capsys) -> None:
    torch.save({**LOADED, "extra": Evil()}, tmp_path / "m.ckpt")
    with pytest.raises(ValueError, match="loads as plain data"):
        read_checkpoint(tmp_path / "m.ckpt")
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("loaded", [{"state_dict": {}}, [1], {"model": 1}])
def test_other_files_of_torch_are_refused(tmp_path, loaded) -> None:
    torch.save(loaded, tmp_path / "m.ckpt")
    with pytest.raises(ValueError, match=r"that anomalib >= 2\.7 saved"):
        read_checkpoint(tmp_path / "m.ckpt")


def test_settings_of_models_are_read_when_they_are_types_of_anomalib(tmp_path) -> None:
    from anomalib import PrecisionType
    from anomalib.models.image.efficient_ad.torch_model import EfficientAdModelSize

    hyper = {"precision": PrecisionType.FLOAT32, "model_size": EfficientAdModelSize.S}
    torch.save({**LOADED, "hyper_parameters": hyper}, tmp_path / "m.ckpt")
    assert read_checkpoint(tmp_path / "m.ckpt")["hyper_parameters"] == hyper


def test_class_is_asked_for_when_nothing_names_it(tmp_path) -> None:
    folder = tmp_path / "Padim" / "part" / "v0" / "weights" / "lightning"
    folder.mkdir(parents=True)
    with pytest.raises(ValueError, match=r"`model` must be given.*suggest `--model Padim`"):
        load_model(None, folder / "model.ckpt", LOADED)


@pytest.mark.parametrize("name", ["NoSuchModel", "no.such.module.Model", "pathlib.Path", "anomalib.models"])
def test_class_is_refused_when_it_is_no_model(tmp_path, name) -> None:
    with pytest.raises(ValueError, match="`model` must be the class path of an anomalib model"):
        load_model(name, tmp_path / "m.ckpt", LOADED)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("trainer: {}", "must be a configuration with a `model`"),
        ("model: {class_path: pathlib.Path}", "`model` cannot be built"),
        ("model: {class_path: anomalib.models.Padim, init_args: {no_such: 1}}", "`model` cannot be built"),
        ("model: [", "must be a readable configuration"),
    ],
)
def test_configuration_is_refused_when_it_does_not_fit(tmp_path, text, said) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ValueError, match=said):
        load_model(str(tmp_path / "c.yaml"), tmp_path / "m.ckpt", LOADED)


def test_missing_configuration_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="must be a readable configuration"):
        load_model(str(tmp_path / "gone.yaml"), tmp_path / "m.ckpt", LOADED)


@pytest.mark.parametrize(
    "error", [RuntimeError("[enforce fail] file write failed"), OSError(errno.ENOSPC, "No space left on device")]
)
def test_checkpoint_is_as_it_was_when_the_disk_is_full(error, tmp_path, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise error

    (tmp_path / "calibrated.ckpt").write_bytes(b"before")
    monkeypatch.setattr("torch.save", fail)
    with pytest.raises(StoreError, match=r"calibrated.ckpt' could not be written"):
        save_checkpoint({}, tmp_path / "calibrated.ckpt")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("calibrated.ckpt", b"before")]
