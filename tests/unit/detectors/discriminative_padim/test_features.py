"""Features: local means on one grid, against an independent computation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from anomalib_synth.detectors.discriminative_padim.features import GridFeatures, bring_to_grid, draw_projection
from tests.unit.detectors.discriminative_padim.pyramid import Pyramid


def test_features_are_local_means_on_the_grid_of_stride_8() -> None:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = GridFeatures(Pyramid(), channels=99)(images)
    assert found.shape == (2, 9, 4, 4)
    middle = F.avg_pool2d(images, 8).numpy()
    for row, column in ((0, 0), (1, 2), (3, 3)):
        around = middle[:, :, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        np.testing.assert_allclose(found[:, 3:6, row, column], around.mean((2, 3)), rtol=1e-5)
    fine = F.avg_pool2d(F.avg_pool2d(images, 4), 3, 1, 1, count_include_pad=False)
    torch.testing.assert_close(found[:, :3], F.adaptive_avg_pool2d(fine, 4))


def test_wide_features_are_projected_by_an_orthogonal_matrix_of_a_seed() -> None:
    state = torch.get_rng_state()
    network = GridFeatures(Pyramid(), channels=4, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(network.projection @ network.projection.T, torch.eye(4))
    assert torch.equal(network.projection, draw_projection(9, 4, 3))
    assert not torch.equal(network.projection, draw_projection(9, 4, 4))
    images = torch.rand(1, 3, 32, 32)
    every = GridFeatures(Pyramid(), channels=9)(images)
    torch.testing.assert_close(network(images), torch.einsum("dc,bchw->bdhw", network.projection, every))


@pytest.mark.parametrize(("size", "grid"), [((6, 6), (3, 3)), ((5, 7), (2, 3)), ((2, 2), (4, 4))])
def test_maps_come_to_the_grid(size, grid) -> None:
    features = torch.rand(1, 2, *size)
    expected = (
        F.interpolate(features, grid, mode="bilinear") if size[0] < grid[0] else F.adaptive_avg_pool2d(features, grid)
    )
    torch.testing.assert_close(bring_to_grid(features, grid), expected)
