"""Residual selection (RRS) and the discriminator, against NumPy and hand-worked cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anomalib_synth.detectors.realnet.discriminator import Discriminator, ResidualSelection


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


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
