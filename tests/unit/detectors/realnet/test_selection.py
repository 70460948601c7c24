"""Feature selection (AFS) against NumPy and hand-worked cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch

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
