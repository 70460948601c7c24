"""The frozen backbone, and the folding of its normalisations."""

from __future__ import annotations

import pytest
import torch

from anomalib_synth.detectors.backbone import FrozenBackbone
from anomalib_synth.detectors.folding import fold_batch_norms


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_backbone_stays_frozen_and_in_evaluation_mode() -> None:
    backbone = FrozenBackbone("ghostnet_100", ["blocks.1", "blocks.3"])  # keeps its normalisations
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    features = backbone.train()(random(2, 3, 64, 64))
    assert [tuple(f.shape) for f in features] == [(2, 24, 16, 16), (2, 40, 8, 8)]
    assert (backbone.channels, backbone.strides) == ([24, 40], [4, 8])
    assert not any(feature.requires_grad for feature in features)
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


@pytest.mark.parametrize(
    ("name", "layers"), [("efficientnet_lite0", ["blocks.1", "blocks.2"]), ("resnet10t", ["layer1"])]
)
def test_backbone_has_only_the_blocks_it_needs(name, layers) -> None:
    import timm

    backbone = FrozenBackbone(name, layers)
    full = timm.create_model(name, pretrained=False, features_only=True)
    assert sum(p.numel() for p in backbone.parameters()) < 0.2 * sum(p.numel() for p in full.parameters())
    ran = []
    for block in backbone.modules():
        if not list(block.children()) and list(block.parameters(recurse=False)):
            block.register_forward_hook(lambda module, *_: ran.append(module))
    backbone(random(1, 3, 64, 64))
    assert sum(p.numel() for module in set(ran) for p in module.parameters()) == sum(
        p.numel() for p in backbone.parameters()
    )


def test_backbone_of_some_blocks_reads_all_their_weights(tmp_path) -> None:
    import timm

    source = timm.create_model("efficientnet_lite0", pretrained=False)
    file = tmp_path / "weights.pth"
    torch.save(source.state_dict(), file)
    backbone = FrozenBackbone("efficientnet_lite0", ["blocks.1", "blocks.2"], weights=file)
    backbone.load_weights()
    plain = timm.create_model("efficientnet_lite0", pretrained=False, features_only=True, out_indices=(1, 2)).eval()
    plain.load_state_dict(source.state_dict(), strict=False)
    with torch.no_grad():
        for ours, theirs in zip(backbone(random(1, 3, 64, 64)), plain(random(1, 3, 64, 64)), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_backbone_reads_a_weight_file(tmp_path) -> None:
    import timm

    source = timm.create_model("resnet10t", pretrained=False)
    file = tmp_path / "weights.pth"
    torch.save(source.state_dict(), file)
    backbone = FrozenBackbone("resnet10t", ["layer1", "layer2"], weights=file)
    images = random(1, 3, 64, 64)
    plain = timm.create_model("resnet10t", pretrained=False, features_only=True, out_indices=(1, 2)).eval()
    plain.load_state_dict(source.state_dict(), strict=False)
    with torch.no_grad():
        assert not torch.allclose(backbone(images)[1], plain(images)[1], rtol=1e-4, atol=1e-4)
        backbone.load_weights()
        torch.testing.assert_close(backbone(images)[1], plain(images)[1], rtol=1e-4, atol=1e-4)


def test_missing_weights_name_the_remedies(tmp_path, monkeypatch) -> None:
    import timm

    def refuse(*args: object, **kwargs: object) -> None:
        msg = "no route to the hub"
        raise ConnectionError(msg)

    backbone = FrozenBackbone("resnet10t", ["layer1"])
    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(OSError, match=r"no route to the hub.*`backbone_weights`.*efficientnet_lite0_bundled"):
        backbone.load_weights()
    monkeypatch.undo()
    missing = FrozenBackbone("resnet10t", ["layer1"], weights=tmp_path / "none.pth")
    with pytest.raises(OSError, match=r"could not be read from .*none.pth"):
        missing.load_weights()


def test_a_weight_file_of_other_names_is_refused(tmp_path) -> None:
    import timm

    source = timm.create_model("resnet10t", pretrained=False).state_dict()
    file = tmp_path / "weights.pth"
    torch.save({f"model.{name}": value for name, value in source.items()}, file)
    backbone = FrozenBackbone("resnet10t", ["layer1", "layer2"], weights=file)
    with pytest.raises(OSError, match=r"\d+ tensors are missing \('bn1.*It holds 'model.bn1.*no prefix"):
        backbone.load_weights()


@pytest.mark.parametrize(
    ("name", "layers", "message"),
    [
        (
            "resnet10x",
            ["layer1"],
            r"`backbone` must name a timm network, got 'resnet10x'. .*'resnet10t'",
        ),
        ("resnet10t", ["layer9"], r"`layers` must be among .*'layer4'\] for backbone 'resnet10t', got \['layer9'\]"),
        ("resnet10t", [], r"`layers` must be among"),
        ("resnet10t", ["layer2", "layer1"], r"`layers` must go from fine to coarse"),
        (
            "swin_tiny_patch4_window7_224",
            ["layers.0"],
            r"must be a convolutional timm network.*got 'swin_tiny",
        ),
    ],
)
def test_backbone_errors_name_the_argument(name, layers, message) -> None:
    with pytest.raises(ValueError, match=message):
        FrozenBackbone(name, layers)


def make_network(name: str) -> torch.nn.Module:
    """A timm network whose normalisations do something."""
    import timm

    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False, features_only=True, out_indices=(0, 1, 2)).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 2.0)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.3, 0.3)
    return network


@pytest.mark.parametrize(
    ("name", "folds"),
    [
        ("efficientnet_lite0_bundled", True),
        ("resnet10t", True),
        ("mobilenetv3_small_050", True),
        ("ghostnet_100", False),
    ],
)
def test_folding_changes_no_feature(name, folds) -> None:
    network = make_network(name)
    folded = fold_batch_norms(network)
    images = random(2, 3, 96, 64)
    with torch.no_grad():
        for before, after in zip(network(images), folded(images), strict=True):
            torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3)
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules()) != folds


@pytest.mark.parametrize("name", ["resnet10t", "ghostnet_100", "coatnet_nano_rw_224"])
def test_folding_depends_on_the_architecture_only(name) -> None:
    import timm

    random_start = timm.create_model(name, pretrained=False, features_only=True, out_indices=(0, 1, 2)).eval()
    trained = make_network(name)
    assert fold_batch_norms(random_start).state_dict().keys() == fold_batch_norms(trained).state_dict().keys()


def test_folding_leaves_a_network_alone_when_it_would_change_its_features() -> None:
    class Shared(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)
            self.norm.running_mean.fill_(0.5)

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            hidden = self.conv(x)
            return [hidden + self.norm(hidden)]

    network = Shared().eval()
    assert fold_batch_norms(network) is network
