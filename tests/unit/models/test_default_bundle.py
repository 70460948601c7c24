"""The bundle that comes with the package: there, small, licensed, and it does what it says."""

from __future__ import annotations

import pytest
import torch

from anomalib_synth.generators import AutoregressiveGenerator
from anomalib_synth.models.bundle import DEFAULT, load_bundle
from anomalib_synth.models.editing import edit_window
from tests.contract import render_normals


@pytest.fixture(scope="module")
def generator() -> AutoregressiveGenerator:
    return AutoregressiveGenerator()


def test_it_is_small_and_says_what_it_was_made_of() -> None:
    assert sum(file.stat().st_size for file in DEFAULT.iterdir()) <= 8 * 2**20
    card = load_bundle().card
    assert set(card["inputs"].values()) <= {"Apache-2.0", "public domain or CC0"}
    assert card["reconstruction_psnr_db"]["tokens"] > 26
    assert card["token_model"]["best"] < 5.2
    assert len(card["normals_hash"]) == 32


def test_dark_is_darker_than_bright(generator) -> None:
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 22:42, 22:42] = 1
    inside = mask.expand(1, 3, -1, -1) > 0
    right = 0
    for seed in range(12):
        window = render_normals(1, 3, 64, 64, seed=seed)
        means = [
            float(
                edit_window(generator.backend, window, mask, text, seed=seed, sampling=generator.sampling)
                .image[inside]
                .mean()
            )
            for text in ("a dark scratch, high contrast", "a bright scratch, high contrast")
        ]
        right += means[0] < means[1]
    assert right >= 11


def test_it_draws_without_any_argument(generator) -> None:
    images = render_normals(8, 3, 128, 128)
    sample = generator(images, seeds=list(range(8)))
    assert int(sample.accepted.sum()) >= 6
    assert all(sample.caption[row] for row in sample.accepted.nonzero().flatten().tolist())
