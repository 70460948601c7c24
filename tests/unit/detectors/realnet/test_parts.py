"""RealNet's parts against independent computations and hand-worked cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anomalib_synth.detectors.realnet.discriminator import Discriminator, ResidualSelection
from anomalib_synth.detectors.realnet.reconstruction import ReconstructionUNet
from anomalib_synth.detectors.realnet.selection import FeatureSelector, selection_loss
from anomalib_synth.detectors.realnet.torch_model import RealNetModel
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
        (random(3, 1, 12, 12, seed=2) > 0.8).float(),
    )
    expected = np.zeros(4)
    for image in range(3):
        target = mask[image, 0].numpy().reshape(6, 2, 6, 2).max((1, 3))  # by any overlap
        for channel in range(4):
            change = (anomalous[image, channel].numpy().astype(np.float64) - normal[image, channel].numpy()) ** 2
            change = (change - change.min()) / (change.max() - change.min() + 1e-4)
            expected[channel] += ((change - target) ** 2).mean()
    np.testing.assert_allclose(selection_loss(anomalous, normal, mask), expected, rtol=1e-5)


def test_a_defect_of_one_pixel_counts_in_its_cell_when_the_mask_is_finer() -> None:
    mask = torch.zeros(1, 1, 8, 8)
    mask[0, 0, 3, 6] = 1  # in the cell (0, 1) of 2 x 2, and on no corner of one
    change = torch.zeros(1, 2, 2, 2)
    change[0, 1, 0, 1] = 1
    found = selection_loss(change, torch.zeros(1, 2, 2, 2), mask)
    torch.testing.assert_close(found, torch.tensor([0.25, 0.0]), rtol=0, atol=1e-6)


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


def test_features_are_averaged_over_their_neighbours_and_the_border_over_fewer() -> None:
    class Fixed(torch.nn.Module):
        channels, strides = (3,), (4,)

        def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
            return [images]

    model = RealNetModel.build(
        Fixed(), feature_dims=[2], reconstruction_width=1.0, reconstruction_blocks=1, residual_dims=(1, 1),
        discriminator_width=8, discriminator_blocks=1,
    )  # fmt: skip
    images = random(2, 3, 4, 5)
    (found,) = model.extract(images)
    values, expected = images.numpy(), np.zeros((2, 3, 4, 5), np.float32)
    for row in range(4):
        for column in range(5):
            near = values[:, :, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            expected[:, :, row, column] = near.mean((2, 3))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
