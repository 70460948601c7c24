"""Scales as products with fixed matrices, against torch and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d
from torch.nn import functional as F

from anomalib_synth.detectors.discriminative_padim.scales import (
    blur_matrix,
    make_resize,
    make_upsampling,
    resize_matrix,
    scaled_size,
)


@pytest.mark.parametrize("target", [(20, 12), (40, 48), (32, 32)])
def test_resize_is_torchs_antialiased_one(target) -> None:
    images = torch.rand(2, 3, 32, 32)
    shrinks = target[0] < 32
    expected = F.interpolate(images, target, mode="bilinear", antialias=shrinks)
    torch.testing.assert_close(make_resize((32, 32), target)(images), expected, atol=1e-5, rtol=1e-5)


def test_blur_is_scipys_away_from_the_border_and_keeps_a_constant() -> None:
    signal = np.random.default_rng(0).random(64)
    found = blur_matrix(64, 2.0).double().numpy() @ signal
    np.testing.assert_allclose(found[8:-8], gaussian_filter1d(signal, 2.0, truncate=4.0)[8:-8], rtol=1e-5)
    np.testing.assert_allclose(blur_matrix(64, 2.0).sum(1), 1, rtol=1e-5)
    assert torch.equal(blur_matrix(5, 0.0), torch.eye(5))


def test_maps_are_interpolated_then_blurred() -> None:
    maps = torch.rand(1, 1, 4, 6)
    found = make_upsampling((4, 6), (32, 48), 0.05)(maps)
    large = F.interpolate(maps, (32, 48), mode="bilinear")
    expected = blur_matrix(32, 1.6) @ large @ blur_matrix(48, 2.4).T
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert resize_matrix(4, 32).shape == (32, 4)


def test_scaled_sizes_keep_the_shape_and_fit_all_strides() -> None:
    assert scaled_size((256, 256), 160) == (160, 160)
    assert scaled_size((208, 512), 256) == (96, 256)
    assert scaled_size((30, 1000), 64) == (32, 64)
