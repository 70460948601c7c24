"""A configuration that lay beside a checkpoint imports nothing but known packages, however it names a class."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from anomalib_synth.calibration.checkpoints import load_model
from anomalib_synth.calibration.found_config import check_found_config
from anomalib_synth.generators import build_generator

LOADED = {"state_dict": {}, "hyper_parameters": {}, "anomalib_components_enabled": {}}
EVIL = "evil_module.Evil"
FINE = {"class_path": "torchvision.transforms.v2.Resize", "init_args": {"size": [8, 8]}}


@pytest.fixture
def checkpoint(tmp_path, monkeypatch) -> Path:
    """A checkpoint's path, with a module that must not be imported on the path."""
    (tmp_path / "evil_module.py").write_text("raise SystemExit('imported')")
    (tmp_path / "sub.yaml").write_text(f"class_path: {EVIL}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run" / "weights" / "lightning" / "model.ckpt"
    path.parent.mkdir(parents=True)
    return path


def write(checkpoint: Path, section: object, *, data: object = None) -> Path:
    path = checkpoint.parents[2] / "config.yaml"
    path.write_text(yaml.safe_dump({"model": section, **({} if data is None else {"data": data})}))
    return path


def padim(pre_processor: object) -> dict[str, object]:
    return {"class_path": "anomalib.models.Padim", "init_args": {"pre_processor": pre_processor}}


@pytest.mark.parametrize(
    "section",
    [
        {"class_path": EVIL},
        padim({"class_path": EVIL}),
        padim(EVIL),
        padim(f"{{class_path: {EVIL}}}"),
        padim("sub.yaml"),
        padim([[{"class_path": EVIL}]]),
        {"class_path": "anomalib.models.Padim", "dict_kwargs": {"x": {"class_path": EVIL}}},
        padim({"class_path": "subprocess.Popen"}),
        padim({"class_path": "torch.hub.load"}),
        padim({"class_path": "not_installed.Anything"}),
    ],
)
def test_nothing_is_imported_when_a_found_configuration_names_a_foreign_class(checkpoint, section) -> None:
    path = write(checkpoint, section)
    with pytest.raises(ValueError, match=rf"found beside the checkpoint, must name classes of .*`--model {path}`"):
        load_model(None, checkpoint, LOADED)
    assert "evil_module" not in sys.modules


def test_nothing_is_imported_when_its_data_names_a_foreign_class(checkpoint) -> None:
    write(checkpoint, {"class_path": "anomalib.models.Padim"}, data={"class_path": EVIL})
    for model in (None, "anomalib.models.Padim"):
        with pytest.raises(ValueError, match=rf"got `data.class_path` '{EVIL}'"):
            load_model(model, checkpoint, LOADED)
    assert "evil_module" not in sys.modules


def test_a_foreign_class_is_imported_when_the_user_names_the_configuration(checkpoint) -> None:
    path = write(checkpoint, {"class_path": EVIL})
    with pytest.raises(SystemExit, match="imported"):
        load_model(str(path), checkpoint, LOADED)


@pytest.mark.parametrize("name", ["hf-hub:org/name", "hf_hub:org/name", "https://example.org/x.pth"])
def test_what_would_be_fetched_is_refused_when_a_configuration_or_checkpoint_names_it(checkpoint, name) -> None:
    write(checkpoint, {"class_path": "anomalib.models.Padim", "init_args": {"backbone": name}})
    with pytest.raises(
        ValueError, match=rf"must not name what would be fetched, got `model.init_args.backbone` '{name}'"
    ):
        load_model(None, checkpoint, LOADED)
    (checkpoint.parents[2] / "config.yaml").unlink()
    with pytest.raises(ValueError, match=rf"must not name what would be fetched, got `backbone` '{name}'"):
        load_model("anomalib.models.Padim", checkpoint, {**LOADED, "hyper_parameters": {"backbone": name}})


def test_a_configuration_of_known_packages_is_taken_when_it_names_files_and_layers_with_dots() -> None:
    section = {
        "class_path": "anomalib.models.Patchcore",
        "init_args": {
            "backbone": "wide_resnet50_2.tv2_in1k", "layers": ["blocks.2", "layer1.conv"], "dtype": "torch.float32",
            "pre_processor": {"class_path": "anomalib.pre_processing.PreProcessor", "init_args": {"transform": FINE}},
        },
    }  # fmt: skip
    data = {"class_path": "anomalib_synth.data.DemoParts", "init_args": {"root": "/data/v1.2", "name": "image.png"}}
    check_found_config({"model": section, "data": data, "trainer": {"x": EVIL}}, Path("config.yaml"))


def test_a_configuration_is_looked_at_once_when_it_refers_to_itself() -> None:
    check_found_config(yaml.safe_load("model: &m {class_path: Padim, init_args: [*m, *m]}"), Path("config.yaml"))
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}]" for n in range(1, 40))]
    check_found_config({"model": yaml.safe_load("\n".join(lines))}, Path("config.yaml"))


def test_a_checkpoint_fetches_no_backbone_when_it_was_trained_from_a_pretrained_one(checkpoint, monkeypatch) -> None:
    import timm

    asked, create = [], timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: asked.append(k.get("pretrained")) or create(*a, **k))
    write(checkpoint, {"class_path": "anomalib.models.Padim", "init_args": {"backbone": "resnet18"}})
    load_model(None, checkpoint, {**LOADED, "pytorch-lightning_version": "2.6.0"})
    assert asked
    assert not any(asked)


def test_no_module_is_imported_when_a_generator_is_built_from_a_record(checkpoint) -> None:
    with pytest.raises(ValueError, match="must name a generator of a module that is imported"):
        build_generator({"class_path": EVIL, "init_args": {}})
    assert "evil_module" not in sys.modules
