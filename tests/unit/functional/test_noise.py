"""Noise fields against independent NumPy implementations."""

from __future__ import annotations

import numpy as np
import torch

from anomalib_synth.functional.noise import (
    _DIRECTIONS,
    fractal_noise,
    hash_uniform,
    noise_along,
    perlin_noise,
    value_noise,
    white_noise,
)


def lattice_value(seed: int, row: int, column: int) -> float:
    """The hash, in Python's unbounded integers."""
    mask = 2**32 - 1
    value = ((seed * 0x9E3779B1 + row * 0x85EBCA77) & mask) + (column * 0xC2B2AE3D & mask)
    value = ((value ^ (value >> 15)) * 0x2C1B3C6D) & mask
    value = ((value ^ (value >> 12)) * 0x297A2D39) & mask
    return ((value ^ (value >> 15)) >> 8) / 2**24


def coordinates(values: np.ndarray, axis: int) -> torch.Tensor:
    shape = (1, 1, 1, -1) if axis == 1 else (1, 1, -1, 1)
    return torch.tensor(values, dtype=torch.float32).view(shape)


def test_hash_is_that_of_unbounded_integers() -> None:
    rows, columns = torch.arange(-3, 4).view(-1, 1), torch.arange(-3, 4).view(1, -1)
    table = hash_uniform(torch.tensor(12345), rows, columns)
    expected = [[lattice_value(12345, r, c) for c in range(-3, 4)] for r in range(-3, 4)]
    np.testing.assert_array_equal(table.numpy(), np.array(expected, dtype=np.float32))


def test_white_noise_is_uniform_and_uncorrelated() -> None:
    x, y = coordinates(np.arange(256), 1), coordinates(np.arange(256), 0)
    noise = white_noise(torch.tensor([5.0]), x, y)[0, 0].numpy()
    assert abs(noise.mean() - 0.5) < 0.01
    assert abs(noise.std() - 12**-0.5) < 0.01
    for shifted in (np.roll(noise, 1, 0), np.roll(noise, 1, 1), np.roll(noise, (1, 1), (0, 1))):
        assert abs(np.corrcoef(noise.ravel(), shifted.ravel())[0, 1]) < 0.02


def test_value_noise_is_a_smoothstep_blend_of_its_lattice() -> None:
    x, y = np.linspace(-9.3, 14.2, 37), np.linspace(-4.1, 11.7, 23)
    noise = value_noise(torch.tensor([77.0]), coordinates(x, 1), coordinates(y, 0), torch.tensor([3.5]))[0, 0].numpy()
    expected = np.empty((23, 37))
    for i, yi in enumerate(y.astype(np.float32) / np.float32(3.5)):
        for j, xj in enumerate(x.astype(np.float32) / np.float32(3.5)):
            r, c = int(np.floor(yi)), int(np.floor(xj))
            ty, tx = yi - r, xj - c
            sy, sx = ty * ty * (3 - 2 * ty), tx * tx * (3 - 2 * tx)
            above = (1 - sx) * lattice_value(77, r, c) + sx * lattice_value(77, r, c + 1)
            below = (1 - sx) * lattice_value(77, r + 1, c) + sx * lattice_value(77, r + 1, c + 1)
            expected[i, j] = (1 - sy) * above + sy * below
    np.testing.assert_allclose(noise, expected, atol=1e-5)


def test_perlin_noise_is_the_gradient_noise_of_the_textbook() -> None:
    x, y = np.linspace(-20.3, 33.2, 41), np.linspace(-7.9, 25.1, 29)
    cells = torch.tensor([9.0]), torch.tensor([6.0])
    noise = perlin_noise(torch.tensor([31.0]), coordinates(x, 1), coordinates(y, 0), *cells)[0, 0].numpy()

    def fade(t: float) -> float:
        return 6 * t**5 - 15 * t**4 + 10 * t**3

    expected = np.empty((29, 41))
    for i, yi in enumerate(y.astype(np.float32) / np.float32(6)):
        for j, xj in enumerate(x.astype(np.float32) / np.float32(9)):
            r, c = int(np.floor(yi)), int(np.floor(xj))
            ty, tx = float(yi - r), float(xj - c)
            corner = {}
            for dr in (0, 1):
                for dc in (0, 1):
                    gx, gy = _DIRECTIONS[int(lattice_value(31, r + dr, c + dc) * 32)]
                    corner[dr, dc] = gx * (tx - dc) + gy * (ty - dr)
            above = corner[0, 0] + fade(tx) * (corner[0, 1] - corner[0, 0])
            below = corner[1, 0] + fade(tx) * (corner[1, 1] - corner[1, 0])
            expected[i, j] = np.sqrt(2) * (above + fade(ty) * (below - above))
    np.testing.assert_allclose(noise, expected, atol=2e-5)


def test_fields_do_not_depend_on_the_window_they_are_computed_in() -> None:
    x, y = coordinates(np.arange(-30, 50) + 0.5, 1), coordinates(np.arange(-20, 40) + 0.5, 0)
    seed, cell = torch.tensor([9.0]), torch.tensor([7.3])
    for field in (
        lambda a, b: value_noise(seed, a, b, cell),
        lambda a, b: fractal_noise(seed, a, b, cell, octaves=3),
        lambda a, b: perlin_noise(seed, a, b, cell, cell * 1.7),
        lambda a, b: noise_along(seed, a + 0.3 * b, cell),
        lambda a, b: white_noise(seed, a, b),
    ):
        whole = field(x, y)
        part = field(x[..., 17:51], y[:, :, 11:33])
        assert torch.equal(whole[:, :, 11:33, 17:51], part)
