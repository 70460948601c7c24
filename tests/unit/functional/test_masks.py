"""Filters and means against NumPy and hand-worked values."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import uniform_filter

from anomalib_synth.functional.masks import (
    blob,
    box_blur,
    count_pixels,
    exact_mean,
    smoothstep,
    soft_wave,
    soften_inside,
)


def test_box_blur_is_scipys_uniform_filter() -> None:
    image = torch.rand(2, 3, 19, 23, generator=torch.Generator().manual_seed(0))
    for radius in (1, 2):
        expected = uniform_filter(image.numpy(), size=(1, 1, 2 * radius + 1, 2 * radius + 1), mode="nearest")
        np.testing.assert_allclose(box_blur(image, radius).numpy(), expected, atol=1e-6)


def test_exact_mean_is_the_mean_and_independent_of_order() -> None:
    value = torch.rand(3, 1, 31, 37, generator=torch.Generator().manual_seed(1))
    weight = (value > 0.3).float()
    np.testing.assert_allclose(exact_mean(value), value.flatten(1).double().mean(1), atol=2e-6)
    expected = [float(v[w > 0].double().mean()) for v, w in zip(value, weight, strict=True)]
    np.testing.assert_allclose(exact_mean(value, weight), expected, atol=2e-6)
    flipped = value.flip(-1, -2)
    assert torch.equal(exact_mean(value), exact_mean(flipped))
    assert exact_mean(value, torch.zeros_like(value)).tolist() == [0.0, 0.0, 0.0]


def test_shapes_have_the_values_they_should() -> None:
    assert smoothstep(torch.tensor([0.0, 0.5, 1.0, 2.0]), 0.0, 1.0).tolist() == [0.0, 0.5, 1.0, 1.0]
    assert smoothstep(torch.tensor([0.0, 1.0]), 1.0, 0.0).tolist() == [1.0, 0.0]
    assert soft_wave(torch.tensor([0.0, 0.25, 0.5, 0.75])).tolist() == [-1.0, 0.0, 1.0, 0.0]
    assert float(blob(torch.tensor(3.0), torch.tensor(4.0), torch.tensor(5.0), torch.tensor(5.0))) == 1.0
    assert count_pixels(torch.eye(4).unsqueeze(0)).tolist() == [4]


def test_border_of_a_mask_is_softened_inwards_and_a_thin_line_is_not() -> None:
    mask = torch.zeros(2, 1, 9, 9)
    mask[0, 0, 2:7, 2:7] = 1
    mask[1, 0, 4] = 1
    block, line = soften_inside(mask)[:, 0]
    expected = torch.zeros(9, 9)
    expected[2:7, 2:7] = 6 / 9
    expected[3:6, 3:6] = 1
    expected[[2, 2, 6, 6], [2, 6, 2, 6]] = 4 / 9
    torch.testing.assert_close(block, expected)
    torch.testing.assert_close(line, mask[1, 0])
