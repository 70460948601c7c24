"""Networks of timm: every weight read from the file, or refused by name; a folder's config.json fetches nothing."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from anomalib_synth.detectors.backbone import FrozenBackbone
from anomalib_synth.models.timm_weights import load_timm_network
from anomalib_synth.retrieval import load_embedder

NAME = "resnet10t"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError(args)

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return timm.create_model(NAME, pretrained=False).state_dict()


@pytest.fixture
def folder(tmp_path, state) -> Path:
    """A folder for `local-dir:`."""
    save_file(state, tmp_path / "model.safetensors")
    pretrained = {"input_size": [3, 64, 64], "classifier": "fc", "first_conv": "conv1.0"}
    config = {"architecture": NAME, "num_classes": 1000, "pretrained_cfg": pretrained}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def edit(folder: Path, **changes: object) -> Path:
    """Change tensors of the file, None takes one out."""
    file = folder / "model.safetensors"
    state = load_file(file)
    for name, value in changes.items():
        key = name.replace("__", ".")
        state.pop(key, None)
        if value is not None:
            state[key] = value
    save_file(state, file)
    return file


def test_weights_are_those_of_the_file_when_it_is_whole(folder, state) -> None:
    network = load_timm_network(NAME, weights=folder / "model.safetensors", features_only=True, out_indices=(1, 2))
    held = network.state_dict()
    assert held
    assert all(torch.equal(value, state[name]) for name, value in held.items())
    assert load_embedder(f"timm:local-dir:{folder}").image_size == 128


@pytest.mark.parametrize("name", ["bn1.running_mean", "bn1.running_var", "bn1.weight", "layer1.0.conv1.weight"])
def test_a_backbone_is_refused_by_name_when_a_tensor_is_missing(folder, name) -> None:
    file = edit(folder, **{name.replace(".", "__"): None})
    with pytest.raises(OSError, match=rf"must hold all weights of '{NAME}'.*1 tensor is missing \('{name}'\)"):
        FrozenBackbone(NAME, ["layer1"], weights=file).load_weights()
    with pytest.raises(OSError, match=rf"1 tensor is missing \('{name}'\)"):
        _ = load_embedder(f"timm:local-dir:{folder}").weights_hash


def test_a_backbone_is_refused_by_name_when_a_deeper_network_is_given(folder) -> None:
    file = edit(folder, layer1__1__conv1__weight=torch.zeros(64, 64, 3, 3))
    with pytest.raises(OSError, match=r"1 tensor is unexpected \('layer1.1.conv1.weight'\)"):
        FrozenBackbone(NAME, ["layer1"], weights=file).load_weights()


def test_a_backbone_is_refused_by_name_when_a_tensor_has_another_shape(folder) -> None:
    file = edit(folder, layer1__0__conv1__weight=torch.zeros(3, 3))
    with pytest.raises(OSError, match=r"size mismatch for layer1.0.conv1.weight"):
        FrozenBackbone(NAME, ["layer1"], weights=file).load_weights()


def test_a_backbone_is_refused_when_a_weight_is_not_finite(folder) -> None:
    file = edit(folder, bn1__weight=torch.full((64,), torch.nan))
    with pytest.raises(OSError, match=r"'bn1.weight' holds values that are not finite"):
        FrozenBackbone(NAME, ["layer1"], weights=file).load_weights()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architecture": "hf-hub:org/name"}, "repository of a hub, got `architecture`"),
        ({"architecture": "no_such"}, "must name a network of timm as `architecture`, got 'no_such'"),
        ({"model_args": {"pretrained_cfg_overlay": {"source": "hf-hub"}}}, "must not say how weights are loaded"),
        ({"model_args": {"pretrained_strict": False}}, "got `model_args.pretrained_strict`"),
        ({"model_args": [1]}, "must have objects as `pretrained_cfg` and `model_args`"),
        ({"num_classes": 10**12}, "no size beyond"),
    ],
)
def test_a_folder_is_refused_when_its_configuration_names_other_weights(folder, changes, said) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(OSError, match=said):
        _ = load_embedder(f"timm:local-dir:{folder}").weights_hash
