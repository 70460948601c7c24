"""Shading of windows against independent NumPy computations."""

from __future__ import annotations

import numpy as np
import torch

from anomalib_synth.functional.shading import bump, over, shade


def hollow(u: np.ndarray, v: np.ndarray, radius_u: float, radius_v: float) -> np.ndarray:
    """Height of a dent of unit depth: the analytic field, written independently."""
    return -(np.maximum(0.0, 1 - (u / radius_u) ** 2 - (v / radius_v) ** 2) ** 3)


def test_bump_slope_is_the_directional_derivative_of_its_height() -> None:
    rng = np.random.default_rng(0)
    u, v = rng.uniform(-12, 12, (2, 1, 1, 20, 20))
    light, step = (0.6, -0.8), 1e-4
    derivative = (
        hollow(u + step * light[0], v + step * light[1], 10, 7)
        - hollow(u - step * light[0], v - step * light[1], 10, 7)
    ) / (2 * step)
    radius = torch.tensor(10.0), torch.tensor(7.0)
    height, slope = bump(torch.from_numpy(u), torch.from_numpy(v), radius, (torch.tensor(0.6), torch.tensor(-0.8)))
    np.testing.assert_allclose(height.numpy(), -hollow(u, v, 10, 7), atol=1e-6)
    np.testing.assert_allclose(slope.numpy(), -derivative, atol=1e-5)


def test_over_is_the_last_coat_when_it_covers() -> None:
    low, high = torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4)
    layer = over((low, torch.full((1, 1, 4, 4), 0.5)), (high, torch.ones(1, 1, 4, 4)))
    torch.testing.assert_close(layer.target, high)
    half = over((low, torch.full((1, 1, 4, 4), 0.5)), (high, torch.full((1, 1, 4, 4), 0.5)))
    torch.testing.assert_close(half.target * half.alpha, 0.25 * low + 0.5 * high)
    torch.testing.assert_close(half.alpha, torch.full((1, 1, 4, 4), 0.75))


def test_shade_reaches_black_and_white_and_keeps_the_image_at_zero() -> None:
    image = torch.rand(1, 3, 4, 4)
    tones = [torch.full((1, 1, 1, 1), value) for value in (-1.0, 0.0, 1.0)]
    black, same, white = (shade(image, tone) for tone in tones)
    assert torch.equal(same, image)
    torch.testing.assert_close(black, torch.zeros_like(image))
    torch.testing.assert_close(white, torch.ones_like(image))
