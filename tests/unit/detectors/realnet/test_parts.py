"""RealNet's parts against independent computations and hand-worked cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from anomalib_synth.detectors.backbone import FrozenBackbone
from anomalib_synth.detectors.folding import fold_batch_norms
from anomalib_synth.detectors.realnet.discriminator import Discriminator, ResidualSelection
from anomalib_synth.detectors.realnet.loss import reconstruction_loss, segmentation_loss
from anomalib_synth.detectors.realnet.reconstruction import ReconstructionUNet
from anomalib_synth.detectors.realnet.selection import FeatureSelector, selection_loss
from anomalib_synth.detectors.statistics import ChannelStatistics


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def fitted_statistics(channels: int) -> ChannelStatistics:
    statistics = ChannelStatistics(channels)
    statistics.update(random(4, channels, 5, 5, seed=9) * 3)
    return statistics


def test_selection_loss_equals_numpy() -> None:
    normal, anomalous, mask = (
        random(3, 4, 6, 6),
        random(3, 4, 6, 6, seed=1),
        (random(3, 1, 12, 12, seed=2) > 0.5).float(),
    )
    expected = np.zeros(4)
    for image in range(3):
        target = mask[image, 0].numpy()[::2, ::2]  # nearest
        for channel in range(4):
            change = (anomalous[image, channel].numpy().astype(np.float64) - normal[image, channel].numpy()) ** 2
            change = (change - change.min()) / (change.max() - change.min() + 1e-4)
            expected[channel] += ((change - target) ** 2).mean()
    np.testing.assert_allclose(selection_loss(anomalous, normal, mask), expected, rtol=1e-5)


def test_channels_that_answer_like_the_mask_are_kept() -> None:
    normal = random(2, 6, 8, 8)
    mask = torch.zeros(2, 1, 8, 8)
    mask[:, :, 2:5, 3:7] = 1
    anomalous = random(2, 6, 8, 8, seed=3)
    for channel in (1, 4):
        anomalous[:, channel] = normal[:, channel] + 2 * mask[:, 0]
    selector = FeatureSelector([6], [2])
    selector.set_selection([selection_loss(anomalous, normal, mask)], [fitted_statistics(6)])
    assert selector.index_0.tolist() == [1, 4]


def test_selected_features_are_standardised() -> None:
    features = random(8, 5, 16, 16) * 4 + 2
    statistics = ChannelStatistics(5)
    for part in features.split(3):
        statistics.update(part)
    selector = FeatureSelector([5], [3])
    selector.set_selection([torch.tensor([0.3, 0.1, 0.5, 0.2, 0.4])], [statistics])
    assert selector.index_0.tolist() == [0, 1, 3]
    (selected,) = selector([features])
    chosen = features[:, [0, 1, 3]].double()
    mean, deviation = chosen.mean((0, 2, 3), keepdim=True), chosen.std((0, 2, 3), correction=0, keepdim=True)
    torch.testing.assert_close(selected.double(), (chosen - mean) / deviation, rtol=1e-4, atol=1e-5)


def test_deviation_is_one_when_a_channel_never_changes() -> None:
    statistics = ChannelStatistics(2)
    statistics.update(torch.full((2, 2, 4, 4), 7.0))
    assert statistics.mean_and_deviation()[1].tolist() == [1.0, 1.0]


def test_selection_raises_when_it_is_not_fitted_and_a_checkpoint_fits_it() -> None:
    selector = FeatureSelector([4], [2])
    with pytest.raises(RuntimeError, match=r"not fitted.*load a checkpoint"):
        selector([torch.rand(1, 4, 3, 3)])
    trained = FeatureSelector([4], [2])
    trained.set_selection([torch.rand(4)], [fitted_statistics(4)])
    selector.load_state_dict(trained.state_dict())
    features = [torch.rand(1, 4, 3, 3)]
    assert torch.equal(selector(features)[0], trained(features)[0])
    selector.load_state_dict(FeatureSelector([4], [2]).state_dict())
    assert not selector.is_fitted


@pytest.mark.parametrize("kept", [[3], [3, 0], [3, 9]])
def test_feature_dims_must_fit_the_layers(kept) -> None:
    with pytest.raises(ValueError, match=r"`feature_dims` must hold one number a layer"):
        FeatureSelector([4, 8], kept)


@pytest.mark.parametrize("size", [(8, 8), (9, 7), (1, 1)])
def test_reconstruction_keeps_the_size_and_starts_at_zero(size) -> None:
    network = ReconstructionUNet(12, width=6, blocks=2)
    x = random(2, 12, *size)
    output = network(x)
    assert output.shape == x.shape
    assert not bool(output.any())
    loss = (output - x).square().mean()
    loss.backward()
    assert all(p.grad is not None for p in network.parameters())


def test_reconstruction_learns() -> None:
    torch.manual_seed(0)
    network = ReconstructionUNet(8, width=8, blocks=1)
    x = random(2, 8, 8, 8)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(30):
        optimizer.zero_grad()
        loss = (network(x) - x).square().mean()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.3 * float(x.square().mean())


def test_residual_selection_equals_numpy() -> None:
    residual = random(3, 10, 5, 6) ** 4
    selection = ResidualSelection(10, by_maximum=3, by_mean=4).eval()
    selection.norm.running_mean.copy_(random(10, seed=4) * 0.1)
    selection.norm.running_var.copy_(random(10, seed=5) + 0.1)
    output = selection(residual)
    mean = selection.norm.running_mean.numpy().astype(np.float64)
    deviation = np.sqrt(selection.norm.running_var.numpy() + 1e-5)
    for image in range(3):
        values = residual[image].numpy()
        normalised = (values - mean[:, None, None]) / deviation[:, None, None]
        by_maximum = np.argsort(-normalised.max((1, 2)), kind="stable")[:3]
        by_mean = np.argsort(-normalised.mean((1, 2)), kind="stable")[:4]
        np.testing.assert_array_equal(output[image], values[[*by_maximum, *by_mean]])


def test_residual_selection_does_not_care_which_channel_answers() -> None:
    residual = random(1, 6, 4, 4)
    selection = ResidualSelection(6, by_maximum=2, by_mean=2).eval()
    assert torch.equal(selection(residual), selection(residual[:, torch.randperm(6)]))


@pytest.mark.parametrize("counts", [(0, 2), (2, 7)])
def test_residual_dims_must_fit_the_channels(counts) -> None:
    with pytest.raises(ValueError, match=r"`residual_dims` must be two numbers in \[1, 6\]"):
        ResidualSelection(6, by_maximum=counts[0], by_mean=counts[1])


def test_discriminator_doubles_the_size() -> None:
    assert Discriminator(6, width=16, blocks=2)(random(2, 6, 5, 7)).shape == (2, 2, 10, 14)


def test_border_of_the_map_is_no_edge_to_the_last_layers() -> None:
    fine = Discriminator(8, width=64, blocks=1).fine
    level = torch.rand(1, 4, 1, 1, generator=torch.Generator().manual_seed(0))
    logits = fine(level.expand(1, 4, 8, 8))
    assert logits.abs().max() > 0.01
    torch.testing.assert_close(logits, logits[:, :, 4:5, 4:5].expand_as(logits))


def test_losses_are_per_sample_and_average_to_the_batch_loss() -> None:
    rebuilt, target = [random(3, 4, 6, 6), random(3, 8, 3, 3)], [random(3, 4, 6, 6, seed=1), random(3, 8, 3, 3, seed=2)]
    loss = reconstruction_loss(rebuilt, target)
    assert loss.shape == (3,)
    torch.testing.assert_close(loss.mean(), sum(F.mse_loss(a, b) for a, b in zip(rebuilt, target, strict=True)))
    alone = reconstruction_loss([part[1:2] for part in rebuilt], [part[1:2] for part in target])
    torch.testing.assert_close(alone[0], loss[1])
    logits, mask = random(3, 2, 6, 6), random(3, 6, 6, seed=3) > 0.5
    loss = segmentation_loss(logits, mask)
    torch.testing.assert_close(loss.mean(), F.cross_entropy(logits, mask.long()))
    torch.testing.assert_close(segmentation_loss(logits[2:], mask[2:])[0], loss[2])


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
    with pytest.raises(OSError, match=r"must hold all of its layers, but \d+ stayed random, such as 'conv1.*no prefix"):
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
