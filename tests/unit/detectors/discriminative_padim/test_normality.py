"""Normality, and residuals without an image's own normal, against loops in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anomalib_synth.detectors.discriminative_padim.cross_fitting import leave_out
from anomalib_synth.detectors.discriminative_padim.normality import PositionGaussian, PositionMoments, distance

COUNT, CHANNELS, GRID = 12, 5, (2, 3)


def draw_features(count: int = COUNT, seed: int = 0) -> torch.Tensor:
    """Features far from mean 0, correlated, with another covariance at each position."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(GRID[0] * GRID[1], CHANNELS, CHANNELS, generator=torch.Generator().manual_seed(99))
    cells = mixing @ torch.randn(GRID[0] * GRID[1], CHANNELS, count, generator=generator) + 7
    return cells.permute(2, 1, 0).reshape(count, CHANNELS, *GRID)


def fit(features: torch.Tensor, mean: torch.Tensor, deviation: torch.Tensor, shrinkage: float) -> PositionGaussian:
    moments = PositionMoments()
    for chunk in features.split(5):
        moments.update(chunk)
    gaussian = PositionGaussian(GRID[0] * GRID[1], CHANNELS, shrinkage=shrinkage)
    gaussian.fit(*moments.standardised(mean, deviation))
    return gaussian


def numpy_gaussians(x: np.ndarray, shrinkage: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Mean and covariance at each position of (n, C, P)."""
    covariances = [np.cov(x[:, :, p].T) for p in range(x.shape[2])]
    pooled = np.mean(covariances, 0)
    ridge = 0.01 * np.eye(x.shape[1])
    return [
        (x[:, :, p].mean(0), (1 - shrinkage) * each + shrinkage * pooled + ridge) for p, each in enumerate(covariances)
    ]


@pytest.mark.parametrize("shrinkage", [0.0, 0.5, 1.0])
def test_distance_is_that_of_a_loop_in_numpy(shrinkage) -> None:
    features, new = draw_features(), draw_features(3, seed=1)
    mean, deviation = features.mean((0, 2, 3)), features.std((0, 2, 3))
    gaussian = fit(features, mean, deviation, shrinkage)
    standard = [((x - mean.view(1, -1, 1, 1)) / deviation.view(1, -1, 1, 1)) for x in (features, new)]
    x, y = (each.flatten(2).double().numpy() for each in standard)
    found = distance(gaussian(standard[1])).flatten(1)
    for position, (centre, covariance) in enumerate(numpy_gaussians(x, shrinkage)):
        gaps = y[:, :, position] - centre
        expected = np.sqrt(np.einsum("bi,ij,bj->b", gaps, np.linalg.inv(covariance), gaps))
        np.testing.assert_allclose(found[:, position], expected, rtol=1e-3)


def leave_one_out_by_refitting(x: np.ndarray, y: np.ndarray, out: int, shrinkage: float) -> np.ndarray:
    """Distances (P,) of y (C, P) by Gaussians that never saw image ``out``; the pooled covariance stays everybody's."""
    count = len(x)
    rest = np.delete(x, out, axis=0)
    pooled = np.mean([np.cov(x[:, :, p].T) for p in range(x.shape[2])], 0)
    found = []
    for p in range(x.shape[2]):
        own = np.cov(rest[:, :, p].T) * (count - 2) / (count - 1)  # the factor that `cross_fitting` leaves out
        covariance = (1 - shrinkage) * own + shrinkage * pooled + 0.01 * np.eye(x.shape[1])
        gap = y[:, p] - rest[:, :, p].mean(0)
        found.append(np.sqrt(gap @ np.linalg.inv(covariance) @ gap))
    return np.array(found)


@pytest.mark.parametrize("shrinkage", [0.2, 0.5])
@pytest.mark.parametrize("moved", [0.0, 3.0])
def test_residual_of_an_image_never_meets_its_own_normal(shrinkage, moved) -> None:
    features = draw_features() - 7
    gaussian = fit(features, torch.zeros(CHANNELS), torch.ones(CHANNELS), shrinkage)
    images = features + moved * torch.randn(features.shape, generator=torch.Generator().manual_seed(5))
    own, whitened = gaussian(features), gaussian(images)
    found = distance(leave_out(whitened, own, count=COUNT, shrinkage=shrinkage)).flatten(1)
    x, y = features.flatten(2).double().numpy(), images.flatten(2).double().numpy()
    for row in range(COUNT):
        expected = leave_one_out_by_refitting(x, y[row], row, shrinkage)
        np.testing.assert_allclose(found[row], expected, rtol=2e-3)
        assert not np.allclose(distance(whitened)[row].flatten(), expected, rtol=2e-2)  # with its own it is nearer


def test_leaving_out_one_of_two_is_refused() -> None:
    residuals = torch.ones(1, CHANNELS, *GRID)
    with pytest.raises(ValueError, match="at least 3 different normal images, got 2"):
        leave_out(residuals, residuals, count=2, shrinkage=0.5)
